"""Base runs on the test bed, kept with all that they made, and recipes' runs beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from engines.files import atomic_write
from engines.load import start_engines
from generators.contract import Constants, Generator
from lab.bed.inputs import Sample
from lab.presenter.render.clip import FPS
from pipeline.batch.dataset import SEED, Request
from pipeline.output_form import SkeletonChunks
from pipeline.recipe import Recipe
from pipeline.sampler import (
    BlendedDenoiser,
    Sampler,
    denoise_loop,
    first_frames,
    own_latents,
)
from pipeline.step_plan import StepPlan, base_plan
from pipeline.video.reader import VideoReader, VideoWriter, read_image

Say = Callable[[str], None]


def write_inputs(folder: Path, samples: Iterable[Sample], generator: Generator) -> None:
    """Write a data folder of the samples, skeleton videos lossless, and kinds.json; what is there stays."""
    for part in ("videos", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    kinds = {}
    for sample in samples:
        kinds[sample.id] = sample.kind
        video = folder / "videos" / f"{sample.id}.mp4"
        if not video.exists():
            Image.fromarray(sample.image).save(folder / "images" / f"{sample.id}.png")
            write_frames(video, [sample.skeletons], generator)
    (folder / "kinds.json").write_text(json.dumps(kinds, indent=1))
    rows = [f"{name},{name}.mp4,{name}.png,{SEED}" for name in kinds]
    (folder / "pairs.csv").write_text("\n".join(["id,video,image,seed", *rows]) + "\n")


def write_frames(path: Path, chunks: Iterable[np.ndarray], generator: Generator) -> None:
    """Write a lossless video of chunks (n, H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, *generator.size, Fraction(FPS), lossless=True) as writer:
        for frame in (frame for chunk in chunks for frame in chunk):
            writer.write(frame)


class Runner:
    """Runs samples of the bed in this process, on OpenVINO in fp32."""

    def __init__(self, generator: Generator, say: Say) -> None:
        choice = Recipe("base", "openvino").choice(generator, "cpu")
        self.generator, self.engines = generator, start_engines(generator, choice, say)[1]
        self._say = say

    def base(self, folder: Path, request: Request) -> None:
        """Make the base run of a sample of a part, if it is not there yet.

        base/<id>.npz holds latents (N + 1, ...), conditional and unconditional predictions (N, ...) of all
        steps and the constants; outputs/ holds the lossless video.
        """
        if not (folder / "outputs" / f"{request.id}.mp4").exists():
            self._base(request, folder / "outputs", folder / "base" / f"{request.id}.npz")

    def another_seed(self, folder: Path, request: Request) -> None:
        """Make the base run with the next seed, to another-seed/, if it is not there yet."""
        if not (folder / "another-seed" / f"{request.id}.mp4").exists():
            self._base(replace(request, seed=request.seed + 1), folder / "another-seed", None)

    def _base(self, request: Request, out: Path, saved: Path | None) -> None:
        generator, (constants, frames) = self.generator, self._conditions(request)
        denoise = Sampler(generator, self.engines).blended(constants, frames)
        latents, kept = self._recorded(request, denoise, base_plan(generator))
        if saved:
            self._save(saved, kept, constants, frames)
        self._decode(latents, frames, out / f"{request.id}.mp4")
        self._say(f"{request.id}: base run with seed {request.seed}")

    def recipe(self, request: Request, recipe: Recipe, out: Path) -> None:
        """Make a run of a recipe without its guard, if it is not there: out/<id>.mp4, and .npz like those of
        base/.
        """
        if (out / f"{request.id}.mp4").exists():
            return
        plan, generator = replace(recipe.steps, guard=None), recipe.adapt(self.generator)
        constants, frames = self._conditions(request)
        denoise = Sampler(generator, self.engines, plan).blended(constants, frames)
        latents, kept = self._recorded(request, denoise, plan)
        self._save(out / f"{request.id}.npz", kept, constants, frames)
        self._decode(latents, frames, out / f"{request.id}.mp4")
        self._say(f"{request.id}: run of {recipe.name}")

    def _save(self, path: Path, kept: dict[str, np.ndarray], constants: Constants, frames: int) -> None:
        given = {f"constant_{name}": array for name, array in constants.items()}
        with atomic_write(path) as draft, draft.open("wb") as file:
            np.savez(file, frames=frames, **kept, **given)

    def _conditions(self, request: Request) -> tuple[Constants, int]:
        image = self.generator.fit(read_image(request.image, notes=[])[None])
        with VideoReader(request.video, square=True) as reader:
            chunks = SkeletonChunks(reader, self.generator)
            return self.generator.condition(self.engines, chunks, image), chunks.frames

    def _decode(self, latents: np.ndarray, frames: int, path: Path) -> None:
        own = own_latents(self.generator, latents, frames)
        write_frames(path, first_frames(self.generator.decode(self.engines, own), frames), self.generator)

    def _recorded(
        self, request: Request, denoise: BlendedDenoiser, plan: StepPlan
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the result; and latents before each evaluated step and what was predicted there, by name."""
        generator, kept = self.generator, {"latents": [], "conditional": [], "unconditional": []}
        noise = generator.noise(denoise.frames, request.seed)
        for state in denoise_loop(denoise, generator.scheduler, noise, plan, generator.frame_axis):
            if state.predictions:
                for name, array in zip(kept, (state.began, *state.predictions), strict=False):
                    kept[name].append(array)
        kept["latents"].append(state.latents)
        return state.latents, {name: np.stack(arrays) for name, arrays in kept.items()}
