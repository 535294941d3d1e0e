"""Sample clips with the denoising loop: windows blended at each step, or sampled one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Protocol

import numpy as np

from engines.device_arrays import place_of, take_frames
from generators.contract import Constants, Engines, Generator, GeneratorError
from generators.samplers import Draw, Scheduler
from generators.windows import ContinuationWindows, frame_slice
from pipeline.base_windows import base_windows, watch_of
from pipeline.blended_denoiser import BlendedDenoiser, StepWindows, part_of, step_windows
from pipeline.guard_watch import GuardWatch, Part
from pipeline.oom_retry import without_first
from pipeline.sampler_state import ClipGuidance, SamplerState, begin_noise
from pipeline.step_plan import StepPlan, base_plan
from pipeline.window_denoiser import OpenDenoiser, WindowDenoiser, denoiser_for, uncovered


class ClipDenoiser(Protocol):
    """A function that predicts for all latent frames of a clip at once. guidance: see SamplerState."""

    guidance: ClipGuidance

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """Return the conditional prediction, at F and H the other branches' too; an empty tuple at S."""
        ...


def denoise_loop(
    denoise: ClipDenoiser,
    scheduler: Scheduler,
    noise: np.ndarray,
    plan: StepPlan,
    frame_axis: int = 2,
    draw: Draw | None = None,
    finite: bool = True,
) -> Iterator[SamplerState]:
    """Denoise a clip's latents from noise to the end of the schedule; give the state after each step.

    It is the same state object each time; if the caller changes its latents, the next step begins with those.
    finite: see SamplerState. StepPlanError: the plan is for a schedule of another length.
    """
    state = SamplerState(plan, scheduler, denoise.guidance, noise, frame_axis, draw, finite)
    for step, action in enumerate(plan.actions):
        predictions = denoise(state.latents, step, action)
        state.advance(step, *predictions)
        yield state


@dataclass(frozen=True)
class Segment:
    """A part of a clip that was sampled at once: its final state, and its pixels, decoded when asked for."""

    state: SamplerState
    pixels: Iterator[np.ndarray]


@dataclass(frozen=True)
class Sampler:
    """A generator with its engines and a step plan, which samples clips.

    plan: None is the base model's own. open_denoiser: opens what evaluates the windows of a clip, for each
    clip anew; None: what the plan's actions need. tick: called after every evaluated window. more: called
    where the plan's guard fires, with the number of windows to be evaluated beyond those of the plan.
    """

    generator: Generator
    engines: Engines
    plan: StepPlan | None = None
    open_denoiser: OpenDenoiser | None = None
    tick: Callable[[], None] = lambda: None
    more: Callable[[int], None] = lambda count: None

    def segments(self, constants: Constants, frames: int, seed: int) -> Iterator[Segment]:
        """Sample a clip of `frames` frames by the generator's window rule: at once, or window by window.

        All pixels of a segment must be taken before the next segment is asked for. StepPlanError: the plan is
        for a schedule of another length.
        """
        if isinstance(self.generator.windows, ContinuationWindows):
            yield from self._continued(constants, frames, seed)
        else:
            state = self.sample(constants, frames, seed)
            pixels = self.generator.decode(self.engines, state.latents)
            yield Segment(state, first_frames(pixels, frames))

    def sample(self, constants: Constants, frames: int, seed: int) -> SamplerState:
        """Sample a clip whose windows are blended; return the final state with its frames' clean latents."""
        generator = self.generator
        noise, draw = self._noise(len(generator.windows.condition_indices(frames)), seed)
        watch = watch_of(generator, self.plan, frames)
        state = self._guarded(
            lambda plan: self.blended(constants, frames, plan), constants, noise, draw, watch
        )
        if watch and watch.unlike and not watch.whole:
            made, axis = self.base_parts(constants, frames, noise, draw), generator.frame_axis
            latents = lambda part: take_frames(state.latents, np.arange(part.begin, part.end), axis)  # noqa: E731
            parts = [(made if part.unlike else latents)(part) for part in watch.parts()]
            state.latents = np.concatenate(parts, axis)
            state.unlike = watch.described()
        state.latents = own_latents(generator, state.latents, frames)
        return state

    def blended(self, constants: Constants, frames: int, plan: StepPlan | None = None) -> BlendedDenoiser:
        """Return the denoiser of a clip whose windows are blended, with the plan's overlaps.

        StepPlanError: the plan is for a schedule of another length. GeneratorError: constants do not cover
        the clip.
        """
        generator, plan = self.generator, plan or self.plan or base_plan(self.generator)
        if wrong := uncovered(generator, constants, frames):
            raise GeneratorError(f"condition: {wrong}; let it encode all chunks, a last one not full too")
        windows = step_windows(generator, plan, frames)
        return self._denoiser(constants, generator.windows.condition_indices(frames), windows)

    def _denoiser(
        self, constants: Constants, condition_indices: np.ndarray, windows: Sequence[StepWindows]
    ) -> BlendedDenoiser:
        denoise = self.window_denoiser(constants, condition_indices)
        return BlendedDenoiser(self.generator, denoise, condition_indices, windows, self.tick)

    def window_denoiser(self, constants: Constants, condition_indices: np.ndarray) -> WindowDenoiser:
        """Open what evaluates the windows of a clip."""
        open_denoiser = self.open_denoiser or denoiser_for(self.plan)
        return open_denoiser(self.generator, self.engines, constants, condition_indices)

    def _noise(self, frames: int, seed: int) -> tuple[np.ndarray, Draw]:
        """Draw as begin_noise does; the numbers go to the device once, where the engines have a place."""
        (noise, draw), place = begin_noise(self.generator, frames, seed), place_of(self.engines)
        if not place:
            return noise, draw
        return place.asarray(noise), lambda step: place.asarray(draw(step))

    def _guarded(
        self,
        denoiser_of: Callable[[StepPlan], BlendedDenoiser],
        constants: Constants,
        noise: np.ndarray,
        draw: Draw,
        watch: GuardWatch | None,
    ) -> SamplerState:
        """Run the plan; where its guard finds all of the clip unlike, run the base model's, from the noise.

        The latents till then are thrown away, because later steps do not repair the error of a wrong jump.
        """
        plan, base, state = self.plan or base_plan(self.generator), base_plan(self.generator), None
        denoise = denoiser_of(plan)
        if watch:
            watch.constants(constants)
        if not (watch and watch.whole):
            state = self._run(denoise, noise, draw, plan, watch)
        if not (watch and watch.whole):
            return state
        again, done = denoiser_of(base), len(state.taken) if state else 0
        self.more(again.count(base) - denoise.count(plan) + denoise.count(plan, done))
        state = self._run(again, noise, draw, base)
        state.unlike = watch.described()
        return state

    def _run(
        self,
        denoise: BlendedDenoiser,
        noise: np.ndarray,
        draw: Draw,
        plan: StepPlan,
        watch: GuardWatch | None = None,
    ) -> SamplerState:
        """Run the loop; return the state at its end, or after the step that leaves no frame to the plan."""
        given = self.generator.scheduler, noise, plan, self.generator.frame_axis, draw
        for state in denoise_loop(denoise, *given, finite=watch is None):
            if watch and state.predictions:
                watch.prediction(plan.evaluated.index(state.step), state.conditional, state.previous)
                if watch.whole:
                    return state
        if watch:
            watch.latents(state.latents)
        return state

    def base_parts(
        self, constants: Constants, frames: int, noise: np.ndarray, draw: Draw | None = None
    ) -> Callable[[Part], np.ndarray]:
        """Return what samples a part of a clip by the base model's plan, in the windows that it lies in.

        Windows beyond these are left out (docs/tuning.md has what that costs). noise: of the whole clip, as
        an array or what has `take` alone. FloatingPointError, when it is called: numbers are not finite.
        """
        generator, plan = self.generator, base_plan(self.generator)
        axis, seen = generator.frame_axis, generator.windows.condition_indices(frames)
        rule, windows = base_windows(generator, frames)[0]
        opened = cache(lambda: self.window_denoiser(constants, seen))

        def sample(part: Part) -> np.ndarray:
            own, indices = part_of(windows, part.begin, part.end)
            steps = [StepWindows(rule, indices)] * len(plan.actions)
            denoise = BlendedDenoiser(generator, opened(), seen, steps, self.tick, own)
            self.more(denoise.count(plan))
            drawn = draw and (lambda step: take_frames(draw(step), own, axis))
            state = self._run(denoise, take_frames(noise, own, axis), drawn, plan)
            return take_frames(state.latents, np.searchsorted(own, np.arange(part.begin, part.end)), axis)

        return sample

    def _continued(self, constants: Constants, frames: int, seed: int) -> Iterator[Segment]:
        """Sample one window after the other, each continued from the last frames of the one before."""
        generator, windows = self.generator, self.generator.windows
        count, every = windows.count(frames), np.arange(windows.length)
        (noise, draw), tail = self._noise(windows.length * count, seed), Tail(windows.keep)
        steps = [StepWindows(windows, [every])] * generator.scheduler.steps
        for number in range(count):
            seen = generator.carry(self.engines, constants, number, tail.pixels if number else None)
            denoise = self._denoiser(seen, every, steps)
            start = number * windows.length
            place = frame_slice(noise.ndim, generator.frame_axis, start, windows.length)
            drawn = lambda step: draw(step)[place]  # noqa: B023, E731
            watch = watch_of(generator, self.plan)
            state = self._guarded(lambda plan: denoise, seen, noise[place], drawn, watch)  # noqa: B023
            known = windows.keep if number else 0  # frames that the window before has given already
            begin = number * (windows.frames - windows.keep) + known
            decoded = first_frames(generator.decode(self.engines, state.latents), windows.frames)
            own = min(windows.frames - known, frames - begin)
            yield Segment(state, first_frames(without_first(tail.watch(decoded), known), own))


class Tail:
    """A buffer of the last `length` frames of the chunks that pass through it; pixels: these frames."""

    def __init__(self, length: int) -> None:
        self._length, self.pixels = length, None

    def watch(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Give the chunks unchanged, and keep the last frames of those taken so far in pixels."""
        self.pixels = None
        for chunk in chunks:
            seen = chunk if self.pixels is None else np.concatenate([self.pixels, chunk])
            self.pixels = seen[-self._length :]
            yield chunk


def generate(
    generator: Generator,
    engines: Engines,
    skeletons: np.ndarray,
    image: np.ndarray,
    seed: int,
    plan: StepPlan | None = None,
    columns: Mapping[str, object] = MappingProxyType({}),
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Return the video (F, H, W, 3) uint8 of a clip that is held in memory.

    skeletons (F, H, W, 3) and image (H, W, 3) are uint8 at the generator's size. columns: see read_columns.
    tick: as a Sampler's.
    """
    chunks = np.split(skeletons, range(generator.chunk, len(skeletons), generator.chunk))
    constants = generator.condition(engines, chunks, image[None], **columns)
    segments = Sampler(generator, engines, plan, tick=tick).segments(constants, len(skeletons), seed)
    return np.concatenate([chunk for segment in segments for chunk in segment.pixels])


def evaluations(generator: Generator, frames: int, plan: StepPlan | None = None) -> int:
    """Return how many windows are evaluated for a clip: a Sampler's ticks, unless the guard fires."""
    plan = plan or base_plan(generator)
    return sum(plan.windows(step, generator.windows).count(frames) for step in plan.evaluated)


def own_latents(generator: Generator, latents: np.ndarray, frames: int) -> np.ndarray:
    """Return the latents of the clip's own frames, without those sampled only to fill the last window."""
    own = generator.windows.latent_frames(frames)
    return latents[frame_slice(latents.ndim, generator.frame_axis, 0, own)]


def first_frames(chunks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Give the chunks' first `frames` frames: the last latent frame may stand for more than the clip has.

    GeneratorError: there are fewer, so that a video would be shorter than its clip.
    """
    given = 0
    for chunk in chunks:
        yield chunk[: frames - given]
        given += len(chunk)
        if given >= frames:
            return
    raise GeneratorError(
        f"decode gives {given} frames of {frames}; let it yield the pixels of all latents, of a last chunk "
        "not full too"
    )
