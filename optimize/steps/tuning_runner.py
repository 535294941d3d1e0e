"""Run recipes for the tuner: capture base runs, fit plans, run them on real requests, judge the videos."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.quality_goal import Judged
from engines.artifact import file_sha256, fingerprint, key
from engines.load import Choice, start_engines
from engines.progress import Progress
from engines.spec import Engine
from generators.contract import Generator, GeneratorError, offers_deep_cache
from generators.samplers import Scheduler
from generators.windows import ContinuationWindows
from optimize.steps.fit import fit_plan
from optimize.steps.guard_fit import fit_guard
from optimize.steps.planner import Costs
from optimize.steps.trajectory import Gram, kept_gram
from pipeline.batch.dataset import Request
from pipeline.columns import read_columns
from pipeline.output_form import SkeletonChunks, at_size, output_form, taking_size
from pipeline.recipe import BASELINE, Recipe
from pipeline.runner import identity_of
from pipeline.sampler import Sampler, denoise_loop, evaluations, first_frames, own_latents
from pipeline.sampler_state import SamplerState, guided_difference
from pipeline.step_plan import StepPlan, base_plan
from pipeline.video.colours import TAGGED, Colours
from pipeline.video.image import read_image
from pipeline.video.reader import VideoReader, VideoWriter

Judge = Callable[[Request, Path], Judged]
ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "optimize/steps/fit.py", "optimize/steps/guard_fit.py", "pipeline/guard.py", "pipeline/step_plan.py",
    "pipeline/sampler_state.py", "pipeline/sampler.py",
    "optimize/steps/trajectory.py", "optimize/steps/jump_tables.py", "generators/samplers.py",
    "generators/diffusion_grids.py", "generators/windows.py", "generators/uniform_windows.py",
)  # fmt: skip
CODE = [ROOT / file for file in FILES]  # decides a plan's result, beside the generator
GAPS = 3  # steps for which deep features are kept, at most: they are much larger than latents
PROBES = 5  # evaluations that are timed; the least time counts: more than that is other programs' work


class TuningClip:
    """A request to tune on. folder: its own, for the base run's latents, one file for each step.

    generator: the one given, at its video's size. frames, fps: of its video. image: the picture (1, H, W, 3)
    uint8. columns: see read_columns. After prepare(), constants are the results of its conditioning, and
    denoise is its denoiser. InputError: a file cannot be used.
    """

    def __init__(self, request: Request, generator: Generator, folder: Path) -> None:
        self.request, self.folder = request, folder
        picture = read_image(request.image, notes=[])
        with VideoReader(request.video, square=True) as reader:
            sizes = (reader.width, reader.height), picture.shape[1::-1]
            self.generator, self.fps = output_form(request, generator, *sizes, reader.fps)
            self.frames = sum(1 for _ in reader.at_rate(self.fps))
        self.image = self.generator.fit(picture[None])
        self.columns = read_columns(request, self.generator, notes=[], image=picture)
        self.denoise, self.constants = None, {}

    def prepare(
        self,
        generator: Generator,
        engines: dict[str, Engine],
        tick: Callable[[], None],
        plan: StepPlan | None = None,
    ) -> None:
        """Condition with these engines, and open the denoiser that runs on them in the plan's windows.

        tick: called after every evaluated window. InputError: the networks do not take the video's size.
        """
        own, generator = generator.size, at_size(generator, self.generator.size)
        with VideoReader(self.request.video, square=True) as reader, taking_size(generator.size, own):
            chunks = SkeletonChunks(reader, generator, self.fps)
            self.constants = generator.condition(engines, chunks, self.image, **self.columns)
        self.denoise = Sampler(generator, engines, plan, tick=tick).blended(self.constants, self.frames)

    def run(self, plan: StepPlan) -> Iterator[SamplerState]:
        """Run the denoising loop by a plan, without its guard; give the state after each step."""
        return denoise_loop(
            self.denoise, self.generator.scheduler, self.noise(), plan, self.generator.frame_axis
        )

    def noise(self) -> np.ndarray:
        """Return the noise with which every run of this request begins."""
        return self.generator.noise(self.denoise.frames, self.request.seed)

    def base(self, step: int) -> np.ndarray:
        """Return the base run's latents before that step, mapped from their file."""
        return np.load(self._file(step), mmap_mode="r", allow_pickle=False)

    def capture(self, gaps: int) -> Gram:
        """Run the base model's plan, write its latents to disk, and return the inner products of its tensors.

        gaps: shallow predictions are measured with the features of up to that many steps before; 0: none.
        """
        kept, features, shallow = ([], [], []), {}, {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for state in self.run(base_plan(self.generator)):
            began, conditional, difference, _ = state.terms
            np.save(self._file(state.step), began)
            difference = np.zeros_like(conditional) if difference is None else difference
            for arrays, array in zip(kept, (began, conditional, difference), strict=True):
                arrays.append(array)
            if gaps:
                own = self.denoise.windows.features
                for before, old in features.items():
                    self.denoise.windows.features = old
                    shallow[state.step, before] = self._shallow(began, state.step)
                self.denoise.windows.features = features[state.step] = own
                features.pop(state.step - gaps, None)
        np.save(self._file(self.generator.scheduler.steps), state.latents)
        kept[0].append(state.latents)
        return Gram.of(*kept, shallow)

    def _shallow(self, latents: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the conditional prediction at H, and the guided difference."""
        conditional, *unconditional = self.denoise(latents, step, "H")
        if not unconditional:
            return conditional, np.zeros_like(conditional)
        return conditional, guided_difference(self.denoise.guidance, conditional, *unconditional)

    def _file(self, step: int) -> Path:
        return self.folder / f"latents-{step:03}.npy"


class TuningRunner:
    """What runs recipes for the tuner: on the tuning clips, in this process.

    folder: for captured runs and videos, on a disk with room for the latents of every step. lossless,
    colours: of videos, see VideoWriter. GeneratorError: the generator's windows are not blended.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        generator: Generator,
        device: str,
        folder: Path,
        judge: Judge,
        lossless: bool = False,
        colours: Colours = TAGGED,
    ) -> None:
        if isinstance(generator.windows, ContinuationWindows):
            raise GeneratorError(f"{generator.name}: windows that follow on one another cannot be tuned yet")
        self.generator, self._device, self._folder, self.judge = generator, device, folder, judge
        self._lossless, self._colours = lossless, colours
        made_of = identity_of(generator)
        self.clips = [TuningClip(each, generator, folder / "base") for each in requests]
        for clip in self.clips:
            clip.folder /= _identity(clip, made_of)
        self._order = list(range(len(self.clips)))  # in which their videos are judged
        self._started: tuple[Choice, dict[str, Engine]] | None = None

    @property
    def identity(self) -> str:
        """A key that changes with device, inputs, seeds, weights, video settings, and how plans run."""
        clips, code = [clip.folder.name for clip in self.clips], fingerprint(CODE)
        written = {"lossless": self._lossless, "colours": str(self._colours)}
        return key({"device": self._device, "clips": clips, **written, "code": code})

    def capture(self, say: Callable[[str], None]) -> list[Gram]:
        """Capture all clips' base runs with the baseline's engines, or load them; return their Grams."""
        grams, engines = [], None
        for number, clip in enumerate(self.clips, 1):
            saved = clip.folder / "products.npz"
            if (gram := kept_gram(saved)) is None:
                engines = engines or self._engines(BASELINE, say)
                with Progress(f"base run {number} of {len(self.clips)}", 1) as progress:
                    clip.prepare(self.generator, engines, progress.tick, self._shallow)
                    progress.total = evaluations(self.generator, clip.frames)
                    gram = clip.capture(GAPS if self._shallow else 0)
                gram.save(saved)
            grams.append(gram)
        return grams

    def costs(self, recipe: Recipe, say: Callable[[str], None]) -> Costs:
        """Return the seconds of the recipe's engines for a window, by F and by each cheaper action."""
        clip, engines = self.clips[0], self._engines(recipe, say)
        windows = self.generator.windows.count(clip.frames)
        taken = {}
        for action in "CF" + "H" * bool(self._shallow):
            clip.prepare(self.generator, engines, lambda: None, self._shallow if action == "H" else None)
            latents = clip.noise()
            for first in ("F", action) if action == "H" else action:
                clip.denoise(latents, 0, first)
            evaluate = partial(clip.denoise, latents, 0, action)
            taken[action] = min(timeit.repeat(evaluate, number=1, repeat=PROBES))
        return Costs(taken.pop("F") / windows, {name: each / windows for name, each in taken.items()})

    @property
    def scheduler(self) -> Scheduler:
        """The base model's scheduler."""
        return self.generator.scheduler

    @property
    def _shallow(self) -> StepPlan | None:
        """A plan with the action H, if the generator offers deep caching and has more than one step."""
        steps = self.generator.scheduler.steps
        return StepPlan("F" + "H" * (steps - 1)) if offers_deep_cache(self.generator) and steps > 1 else None

    def windows(self, recipe: Recipe) -> float:
        """Return the recipe's number of windows in all clips together, as the mean over its evaluations."""
        own, plan = recipe.adapt(self.generator).windows, recipe.steps or base_plan(self.generator)
        calls = sum(plan.calls(self.generator.guidance, own, clip.frames) for clip in self.clips)
        return calls / plan.calls(self.generator.guidance, own, own.frames)

    def run(
        self,
        recipe: Recipe,
        say: Callable[[str], None],
        enough: Callable[[Sequence[Judged]], bool] = lambda videos: False,
    ) -> tuple[Recipe, list[Judged]]:
        """Make and judge each clip's video; return the recipe and the judgements.

        A step plan without a guard is fitted first, and each video is then made by the plan fitted to the
        other clips, see fit.py. When enough() is true of the videos so far, the rest is left out, and the
        last clip is the first of the next run.
        """
        engines, generator = self._engines(recipe, say), recipe.adapt(self.generator)
        plan = recipe.steps or base_plan(generator)
        for clip in self.clips:
            clip.prepare(generator, engines, lambda: None, plan)
        fit = recipe.steps is not None and not plan.guard
        total = len(plan.evaluated) * len(self.clips) * (1 + (fit and plan.cheaper))
        with Progress(f"run {recipe.name}", total) as progress:
            if fit:
                fitted = fit_plan(plan, self.clips, generator.scheduler, progress.tick, generator.frame_axis)
                constants = [clip.constants for clip in self.clips]
                guard = fit_guard(constants, fitted.changes, generator.frame_axis, generator.per_frame)
                recipe, ends = replace(recipe, steps=replace(fitted.plan, guard=guard)), fitted.ends
            else:
                bare = replace(plan, guard=None)
                ends = [_end(clip.run(bare), progress.tick) for clip in self.clips]
        videos = []
        for number in list(self._order):
            clip, end = self.clips[number], ends[number]
            videos.append(self.judge(clip.request, self._make(clip, recipe, engines, end)))
            if enough(videos):
                self._order.remove(number)
                self._order.insert(0, number)
                break
        return recipe, videos

    def close(self) -> None:
        """Close the engines that are running."""
        if self._started:
            for engine in self._started[1].values():
                engine.close()
        self._started = None

    def _make(
        self, clip: TuningClip, recipe: Recipe, engines: dict[str, Engine], latents: np.ndarray
    ) -> Path:
        """Decode a clip's latents, write the video, and return its path."""
        generator, path = clip.generator, self._folder / "videos" / f"{clip.request.id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        latents = own_latents(generator, latents, clip.frames)
        options = {"preset": recipe.preset, "colours": self._colours, "lossless": self._lossless}
        with VideoWriter(path, *generator.size, clip.fps, **options) as writer:
            for pixels in first_frames(generator.decode(engines, latents), clip.frames):
                for frame in pixels:
                    writer.write(frame)
        return path

    def _engines(self, recipe: Recipe, say: Callable[[str], None]) -> dict[str, Engine]:
        """Return the engines of a recipe; those of another choice are closed first."""
        choice = recipe.choice(self.generator, self._device)
        if self._started is None or self._started[0] != choice:
            self.close()
            self._started = (choice, start_engines(self.generator, choice, say)[1])
        return self._started[1]


def _end(loop: Iterator[SamplerState], tick: Callable[[], None]) -> np.ndarray:
    """Run a denoising loop to its end, calling tick after each evaluated step; return the final latents."""
    for state in loop:
        if state.predictions:
            tick()
    return state.latents


def _identity(clip: TuningClip, made_of: Mapping[str, object]) -> str:
    """Return a folder name that changes with everything a base run depends on."""
    request, form = clip.request, [*clip.generator.size, str(clip.fps)]
    files = [file_sha256(path) for path in (request.video, request.image, *request.pictures.values())]
    known = {"files": files, "form": form, "seed": request.seed, "columns": dict(request.columns), **made_of}
    return f"{request.id}-{key(known)}"
