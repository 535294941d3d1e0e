"""The bundled generator end to end: backends times recipes, their frames beside torch's on a processor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.backends import BASE, Clip, Way
from bench.gpu.ceilings import timed
from bench.gpu.measure import REFUSALS, ROUNDS, TINY_ROUNDS, Emit, words_of
from bench.gpu.presenter import Small
from bench.gpu.ways import Place
from bench.timing import rotated
from engines.artifact import built_folder
from engines.export import Target
from engines.load import Choice, backend_module, start_engines
from engines.onnx_artifact import find_onnx
from engines.precision import choose_precisions
from engines.spec import EngineError
from generators.contract import Engines, Generator, load_generator
from generators.distance import psnr, temporal_error
from optimize.recipe import BASELINE, Recipe, load_recipe
from pipeline.data import first_requests
from pipeline.export import export_all
from pipeline.request import read_opening
from pipeline.sample import generate
from pipeline.script import say
from pipeline.submission import build_engines_once

ROOT = Path(__file__).resolve().parents[2]
SAMPLE, RECIPES = ROOT / "data" / "sample", ROOT / "optimize" / "recipes"
FRAMES = 16  # one window
GRAPHS = ("onnxruntime", "onnxruntime-tensorrt", "tensorrt")  # backends that run what was exported


@dataclass(frozen=True)
class Run:
    """A way to make the clip: engines, and the recipe's windows and step plan."""

    generator: Generator
    engines: Engines
    recipe: Recipe

    def __call__(self, clip: Clip) -> np.ndarray:
        """Its frames."""
        return generate(
            self.generator, self.engines, clip.skeletons, clip.image, clip.seed, self.recipe.steps
        )


def measure_recipes(ways: Sequence[str], recipes: Sequence[str], place: Place, emit: Emit) -> None:
    """Emit a row for each way and recipe, named "torch:fp16 exact"; a later row replaces an earlier.

    psnr and temporal_error are of the base model's frames, made by torch in fp32 on the processor. In the
    rounds every way runs every recipe once.
    """
    generator = Small(place.folder / "small") if place.tiny else load_generator("presenter")
    request = first_requests(SAMPLE, 1)[0]
    clip = Clip(*read_opening(request, generator, FRAMES), request.seed)
    chosen = [load_recipe(RECIPES / f"{name}.toml") for name in recipes]
    with ExitStack() as closing:
        base = start_way(generator, BASE, "cpu", closing)
        reference = Run(generator, base, BASELINE)(clip)
        runs: dict[str, Run] = {}
        rows: dict[str, dict] = {}
        for text in ways:
            emit({"begun": text})
            try:
                engines = start_way(generator, Way.parse(text), place.device, closing)
            except REFUSALS as refusal:
                emit({"way": text, "refused": words_of(refusal)})
                continue
            for recipe in chosen:
                name = f"{text} {recipe.name}"
                run = Run(recipe.adapt(generator), engines, recipe)
                emit({"begun": name})
                try:
                    frames = run(clip)
                except REFUSALS as refusal:
                    emit({"way": name, "refused": words_of(refusal)})
                    continue
                runs[name], rows[name] = run, _figures(frames, reference)
                emit({"way": name, **rows[name]})
        _rounds(runs, rows, clip, place, emit)


def _rounds(runs: dict[str, Run], rows: dict[str, dict], clip: Clip, place: Place, emit: Emit) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(TINY_ROUNDS if place.tiny else ROUNDS):
        for name in rotated(list(runs), number):
            emit({"begun": name})
            seconds[name].append(timed(partial(runs[name], clip), place.device))
        for name, each in seconds.items():
            spread = {"seconds": statistics.median(each), "least": min(each), "most": max(each)}
            rows[name] |= {**spread, "rounds": len(each)}
            emit({"way": name, **rows[name]})


def _figures(frames: np.ndarray, reference: np.ndarray) -> dict:
    error = frames.astype(np.float32) - reference
    return {"psnr": psnr(error), "temporal_error": temporal_error(error), "frames": len(frames)}


def start_way(generator: Generator, way: Way, device: str, closing: ExitStack) -> Engines:
    """Running engines, of graphs that are exported and built first where they are not there yet.

    EngineError: this machine cannot run them.
    """
    folder = built_folder(generator.name)
    choice = Choice(way.backend, choose_precisions(way.precision, generator.components), device, folder)
    reason = backend_module(way.backend).why_not(device)
    if reason:  # before minutes of work that would be in vain
        raise EngineError(reason)
    if way.backend in GRAPHS:
        _export_missing(generator, choice)
    build_engines_once(generator.name, generator, choice, ROOT, say)
    _, engines = start_engines(generator, choice, say)
    for engine in engines.values():
        closing.callback(engine.close)
    return engines


def _export_missing(generator: Generator, choice: Choice) -> None:
    try:
        for component, precision in choice.precisions.items():
            find_onnx(choice.folder, generator, component, precision)
    except EngineError:
        export_all(generator, choice.precisions, SAMPLE, Target(choice.folder, say))
