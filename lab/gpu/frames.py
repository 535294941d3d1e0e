"""Run the bundled generator end to end: how fast, how near its frames are, and how near the base model's own.

What runs is what infer.py runs between its reading and its writing of files. Skeletons are read by OpenCV: a
bare machine has no ffmpeg.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bench.engine_bench import Clip
from bench.frame_metrics import psnr, temporal_error
from bench.interleave import interleave, median_ratio
from bench.similarity import Extractor, load_extractor
from engines.artifact import built_folder
from engines.cli import SAMPLE, say
from engines.deferred_engines import defer_steps
from engines.device_arrays import place_for, place_of
from engines.errors import EngineError
from engines.load import Choice, start_engines
from engines.precision import choose_precisions
from generators.contract import Engines, Generator
from generators.presenter.generator import Presenter
from lab.gpu.ceilings import REFUSALS, stop_if_broken, timed, words_of
from lab.gpu.measure import marking, rounds_of
from lab.gpu.networks import Small, denoiser_of
from lab.gpu.run import ROOT, Emit, Place
from lab.gpu.variants import GraphEngine
from pipeline.batch.dataset import Request, first_requests
from pipeline.recipe import BASELINE, Recipe, load_recipe
from pipeline.sampler import generate
from pipeline.video.image import read_image

RECIPES = ROOT / "optimize" / "recipes"
FRAMES = 16  # one window
BASE, GRAPH = "torch:fp16", "graph:fp16"  # what speeds are compared with; the denoiser as a CUDA graph
RESIDENT = "resident:fp16"  # as BASE, and arrays stay on the device
STEPS = "steps:fp16"  # as that, and a step that comes again is one CUDA graph
VARIANTS = ("torch:fp32", "torch:fp16", "torch:bf16", RESIDENT, STEPS, GRAPH)
SHORTENED = (BASE, RESIDENT, STEPS, GRAPH)  # variants that recipes are tried on
EXACT = "torch:fp32 baseline"
TIMED = (f"{BASE} baseline", f"{BASE} exact", f"{BASE} fast", f"{GRAPH} baseline", f"{GRAPH} fast",
         f"{RESIDENT} baseline", f"{RESIDENT} fast", f"{STEPS} baseline", f"{STEPS} fast")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A callable that makes a clip: the recipe's generator and step plan, and running engines."""

    generator: Generator
    engines: Engines
    recipe: Recipe

    def __call__(self, clip: Clip) -> np.ndarray:
        """Make the clip's frames (F, H, W, 3) uint8."""
        steps, place = self.recipe.steps, place_of(self.engines)
        with place.running() if place else nullcontext():
            return generate(self.generator, self.engines, clip.skeletons, clip.image, clip.seed, steps)


def measure_frames(place: Place, emit: Emit) -> None:
    """Emit a row for each variant and recipe, by names as "torch:fp16 exact"; write frames.npz beside.

    Distances are those to the base model's frames, made by torch in fp32 on the processor. noise_floor: how
    far the base model, in fp32 on this device, is from itself run again, and begun one bf16 ulp beside.
    """
    generator = Small(place.folder) if place.tiny else Presenter()
    clip = opening(first_requests(SAMPLE, 1)[0], generator)
    recipes = [BASELINE, *(load_recipe(RECIPES / f"{name}.toml") for name in ("exact", "fast"))]
    judge, runs, rows = load_extractor("stfn"), {}, {}
    with ExitStack() as closing:
        base = Run(generator, start(generator, "torch:fp32", "cpu", closing), BASELINE)(clip)
        frames = {"processor": base}
        for variant in VARIANTS:
            emit("at", variant)
            try:
                engines = start(generator, variant, place.device, closing)
                for recipe in recipes if variant in SHORTENED else recipes[:1]:
                    run = Run(recipe.adapt(generator), engines, recipe)
                    frames[f"{variant} {recipe.name}"] = made = run(clip)
                    runs[f"{variant} {recipe.name}"] = run
                    rows[f"{variant} {recipe.name}"] = figures(made, base, judge)
            except REFUSALS as refusal:
                stop_if_broken(refusal)
                rows[f"{variant} refused"] = {"refused": words_of(refusal)}
            emit("ways", rows)
        if EXACT in runs:
            floors = {"again": runs[EXACT], "one bf16 ulp beside": beside(runs[EXACT])}
            found = {name: figures(run(clip), frames[EXACT], judge) for name, run in floors.items()}
            emit("noise_floor", found)
        _rounds({name: run for name, run in runs.items() if name in TIMED}, rows, clip, place, emit)
    np.savez_compressed(place.folder / "frames.npz", **frames)


def opening(request: Request, generator: Generator) -> Clip:
    """Read the first frames of a request and its picture at the generator's size."""
    import cv2

    video = cv2.VideoCapture(str(request.video))
    read = [video.read() for _ in range(FRAMES)]
    video.release()
    if not all(found for found, _ in read):
        raise RuntimeError(f"OpenCV reads less than {FRAMES} frames of {request.video}")
    skeletons = generator.fit(np.stack([frame[..., ::-1] for _, frame in read]))
    return Clip(skeletons, generator.fit(read_image(request.image, notes=[])[None])[0], request.seed)


def start(generator: Generator, variant: str, device: str, closing: ExitStack) -> Engines:
    """Start engines by a text as torch:fp16. EngineError: this machine cannot run them."""
    backend, _, precision = variant.partition(":")
    backend = "torch" if variant in (GRAPH, RESIDENT, STEPS) else backend
    precisions = choose_precisions(precision, generator.components)
    choice = Choice(backend, precisions, device, built_folder(generator.name))
    _, engines = start_engines(generator, choice, lambda text: None)
    if variant == GRAPH:
        engines = {**engines, "denoise": GraphEngine(denoiser_of(generator), device)}
    for engine in engines.values():
        closing.callback(engine.close)
    if variant in (RESIDENT, STEPS) and device != "cpu":
        place = place_for(engines, device, say)
        if not place:
            raise EngineError("arrays cannot stay on the device: see what was said")
        if variant == STEPS:
            engines, _ = defer_steps(engines, place, say)
    return engines


def figures(frames: np.ndarray, base: np.ndarray, judge: Extractor) -> dict:
    """Return PSNR in dB (None: the same), temporal error in levels, the judge's cosine to the base frames."""
    error = frames.astype(np.float32) - base
    return {"psnr": psnr(error), "temporal_error": temporal_error(error),
            "similarity": judge.cosine(base, frames).raw}  # fmt: skip


def beside(run: Run) -> Run:
    """Return the run from a noise whose numbers are each one unit in the last place of bf16 larger."""
    generator = copy.copy(run.generator)
    generator.noise = lambda frames, seed: one_ulp(run.generator.noise(frames, seed))
    return replace(run, generator=generator)


def one_ulp(numbers: np.ndarray) -> np.ndarray:
    """Move float32 numbers further from zero, each by one unit in the last place of its bfloat16."""
    return (numbers.view(np.uint32) + np.uint32(1 << 16)).view(np.float32)


def _rounds(runs: Mapping[str, Run], rows: dict[str, dict], clip: Clip, place: Place, emit: Emit) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    calls = {name: partial(timed, partial(run, clip), place.device) for name, run in runs.items()}
    for name, _, took in interleave(calls, rounds_of(place), marking(emit)):
        seconds[name].append(took)
    for name, each in seconds.items():
        spread = {"seconds": statistics.median(each), "least": min(each), "most": max(each)}
        rows[name] |= {**spread, "speed": median_ratio(seconds.get(TIMED[0], each), each)}
    emit("ways", rows)
