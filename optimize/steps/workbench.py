"""The tuner's hands: base runs are captured, plans are fitted and run on real requests, videos are judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.quality_goal import Judged
from engines.artifact import built_folder, file_sha256, fingerprint, key
from engines.load import Choice, start_engines
from engines.precision import choose_precisions
from engines.progress import Progress
from engines.spec import Engine
from generators.contract import Generator, GeneratorError, offers_deep_cache
from generators.samplers import Scheduler
from generators.windows import ContinuationWindows
from optimize.steps.fit import fit_plan
from optimize.steps.planner import Costs
from optimize.steps.trajectory import Gram
from pipeline.batch.dataset import Request
from pipeline.guard import fit_guard
from pipeline.recipe import BASELINE, Recipe
from pipeline.request import SkeletonChunks
from pipeline.sampler import Sampler, base_plan, denoise_loop, evaluations, first_frames, own_latents
from pipeline.sampler_state import SamplerState
from pipeline.step_plan import StepPlan
from pipeline.video.colours import TAGGED, Colours
from pipeline.video.image import read_image
from pipeline.video.reader import VideoReader, VideoWriter

Judge = Callable[[Request, Path], Judged]
ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "optimize/steps/fit.py", "pipeline/guard.py", "pipeline/step_plan.py", "pipeline/sampler_state.py",
    "optimize/steps/trajectory.py",
    "optimize/steps/jump_tables.py", "generators/samplers.py", "pipeline/sampler.py",
)  # fmt: skip
CODE = [ROOT / file for file in FILES]  # decides how near a plan comes, beside the generator
GAPS = 3  # steps that features are kept for, at most: each is as large as the latents are small
PROBES = 5  # evaluations that are timed; the least time counts, the rest is other programs' work


class TuningClip:
    """One request to tune on. folder: its own; it gets the base run's latents, a file for each step.

    After prepare() constants are those of its conditioning, and denoise is what the engines predict for it.
    """

    def __init__(self, request: Request, generator: Generator, folder: Path) -> None:
        self.request, self.folder, self.generator = request, folder, generator
        self.image = generator.fit(read_image(request.image, notes=[])[None])
        with VideoReader(request.video) as reader:
            self.frames, self.fps = sum(1 for _ in reader), reader.fps
        self.denoise, self.constants = None, {}

    def prepare(
        self,
        generator: Generator,
        engines: dict[str, Engine],
        tick: Callable[[], None],
        plan: StepPlan | None = None,
    ) -> None:
        """Encode and condition with these engines; predictions are then theirs, in the plan's windows."""
        with VideoReader(self.request.video) as reader:
            chunks = SkeletonChunks(reader, generator)
            self.constants = generator.condition(engines, chunks, self.image)
        self.denoise = Sampler(generator, engines, plan, tick=tick).blended(self.constants, self.frames)

    def run(self, plan: StepPlan) -> Iterator[SamplerState]:
        """The denoising loop by a plan, without its guard."""
        return denoise_loop(
            self.denoise, self.generator.scheduler, self.noise(), plan, self.generator.frame_axis
        )

    def noise(self) -> np.ndarray:
        """Where every run of this request begins."""
        return self.generator.noise(self.denoise.frames, self.request.seed)

    def base(self, step: int) -> np.ndarray:
        """Latents of the base run before that step."""
        return np.load(self._file(step), mmap_mode="r", allow_pickle=False)

    def capture(self, gaps: int) -> Gram:
        """Run the base model's plan, keep its latents on disk; the inner products of all that it made.

        gaps: how many steps back the features are from that shallow engines are measured with.
        """
        kept, features, shallow = ([], [], []), {}, {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for state in self.run(base_plan(self.generator)):
            began, conditional, difference, _ = state.terms
            np.save(self._file(state.step), began)
            for part, array in zip(
                kept, (began, conditional, _or_zeros(difference, conditional)), strict=True
            ):
                part.append(array)
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
        """The conditional prediction at H, and the guided difference."""
        conditional, *unconditional = self.denoise(latents, step, "H")
        if not unconditional:
            return conditional, np.zeros_like(conditional)
        return conditional, (self.denoise.guidance - 1) * (conditional - unconditional[0])

    def _file(self, step: int) -> Path:
        return self.folder / f"latents-{step:03}.npy"


class TuningRunner:
    """Runs recipes on the requests that are tuned on, in this process.

    folder: for what is captured and for videos, on a disk with room for the latents of every step. lossless:
    and colours: of videos, see VideoWriter. GeneratorError: the generator's windows are not blended.
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
        self.generator, self._device, self._folder, self._judge = generator, device, folder, judge
        self._lossless, self._colours = lossless, colours
        weights = fingerprint(generator.fingerprint_files)
        self.cases = [
            TuningClip(each, generator, folder / "base" / _identity(each, weights)) for each in requests
        ]
        self._order = list(range(len(self.cases)))  # in which they are judged
        self._started: tuple[tuple[str, str], dict[str, Engine]] | None = None

    @property
    def identity(self) -> str:
        """Changes with the device, videos, pictures and seeds, weights and networks, and how plans run."""
        cases, code = [case.folder.name for case in self.cases], fingerprint(CODE)
        written = {"lossless": self._lossless, "colours": str(self._colours)}
        return key({"device": self._device, "cases": cases, **written, "code": code})

    def capture(self, say: Callable[[str], None]) -> list[Gram]:
        """The base runs of all cases, by torch in fp32, and their inner products; kept for the next time."""
        grams, engines = [], None
        for number, case in enumerate(self.cases, 1):
            saved = case.folder / "products.npz"
            if saved.is_file():
                gram = Gram.load(saved)
            else:
                engines = engines or self._engines(BASELINE, say)
                with Progress(f"base run {number} of {len(self.cases)}", 1) as progress:
                    case.prepare(self.generator, engines, progress.tick, self._shallow)
                    progress.total = evaluations(self.generator, case.frames)
                    gram = case.capture(GAPS if self._shallow else 0)
                gram.save(saved)
            grams.append(gram)
        return grams

    def costs(self, recipe: Recipe, say: Callable[[str], None]) -> Costs:
        """Seconds of the recipe's engines: an evaluated step of a window in full, and by cheaper actions."""
        case, engines = self.cases[0], self._engines(recipe, say)
        windows = self.generator.windows.count(case.frames)
        taken = {}
        for action in "CF" + "H" * bool(self._shallow):
            case.prepare(self.generator, engines, lambda: None, self._shallow if action == "H" else None)
            latents = case.noise()
            for first in ("F", action) if action == "H" else action:
                case.denoise(latents, 0, first)
            taken[action] = min(_seconds(lambda: case.denoise(latents, 0, action)) for _ in range(PROBES))  # noqa: B023
        return Costs(taken.pop("F") / windows, {name: each / windows for name, each in taken.items()})

    @property
    def scheduler(self) -> Scheduler:
        """The base model's."""
        return self.generator.scheduler

    @property
    def _shallow(self) -> StepPlan | None:
        """A plan with the action H, if the generator offers it."""
        steps = self.generator.scheduler.steps
        return StepPlan("F" + "H" * (steps - 1)) if offers_deep_cache(self.generator) and steps > 1 else None

    def windows(self, recipe: Recipe) -> float:
        """How many windows the recipe has in all cases together, the mean over its evaluations."""
        own, plan = recipe.adapt(self.generator).windows, recipe.steps or base_plan(self.generator)
        calls = sum(plan.calls(self.generator.guidance, own, case.frames) for case in self.cases)
        return calls / plan.calls(self.generator.guidance, own, own.frames)

    def run(
        self,
        recipe: Recipe,
        say: Callable[[str], None],
        enough: Callable[[Sequence[Judged]], bool] = lambda videos: False,
    ) -> tuple[Recipe, list[Judged]]:
        """Make and judge each case's video; a step plan that is not fitted is so first, and returned.

        Then each video is what the plan fitted to the other cases makes, see fit.py. When enough() is
        true of the videos so far, the others are left out, and the next time this case is the first.
        """
        engines, generator = self._engines(recipe, say), recipe.adapt(self.generator)
        plan = recipe.steps or base_plan(generator)
        for case in self.cases:
            case.prepare(generator, engines, lambda: None, plan)
        fit = recipe.steps is not None and not plan.guard
        total = len(plan.evaluated) * len(self.cases) * (1 + (fit and plan.cheaper))
        with Progress(f"run {recipe.name}", total) as progress:
            if fit:
                fitted = fit_plan(plan, self.cases, generator.scheduler, progress.tick, generator.frame_axis)
                constants = [case.constants for case in self.cases]
                guard = fit_guard(constants, fitted.changes, generator.frame_axis, generator.per_frame)
                recipe, ends = replace(recipe, steps=replace(fitted.plan, guard=guard)), fitted.ends
            else:
                bare = replace(plan, guard=None)
                ends = [_end(case.run(bare), progress.tick) for case in self.cases]
        videos = []
        for number in list(self._order):
            case, end = self.cases[number], ends[number]
            videos.append(self._judge(case.request, self._make(case, recipe, engines, end)))
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
        self, case: TuningClip, recipe: Recipe, engines: dict[str, Engine], latents: np.ndarray
    ) -> Path:
        generator, path = self.generator, self._folder / "videos" / f"{case.request.id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        latents = own_latents(generator, latents, case.frames)
        options = {"preset": recipe.preset, "colours": self._colours, "lossless": self._lossless}
        with VideoWriter(path, *generator.size, case.fps, **options) as writer:
            for pixels in first_frames(generator.decode(engines, latents), case.frames):
                for frame in pixels:
                    writer.write(frame)
        return path

    def _engines(self, recipe: Recipe, say: Callable[[str], None]) -> dict[str, Engine]:
        wanted = (recipe.backend, recipe.precision)
        if self._started is None or self._started[0] != wanted:
            self.close()
            precisions = choose_precisions(recipe.precision, self.generator.components)
            choice = Choice(recipe.backend, precisions, self._device, built_folder(self.generator.name))
            self._started = (wanted, start_engines(self.generator, choice, say)[1])
        return self._started[1]


def _end(loop: Iterator[SamplerState], tick: Callable[[], None]) -> np.ndarray:
    """The latents that a loop ends with; tick is called after each evaluated step."""
    for state in loop:
        if state.predictions:
            tick()
    return state.latents


def _or_zeros(array: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.zeros_like(like) if array is None else array


def _identity(request: Request, weights: str | None) -> str:
    """A folder name that changes with all that a base run is made from."""
    files = [file_sha256(path) for path in (request.video, request.image)]
    return f"{request.id}-{key({'files': files, 'seed': request.seed, 'weights': weights})}"


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
