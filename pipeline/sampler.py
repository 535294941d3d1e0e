"""Sample clips with the denoising loop: windows blended at each step, or sampled one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from engines.device_arrays import place_of
from generators.contract import Constants, Engines, Generator
from generators.samplers import Draw, Scheduler
from generators.windows import ContinuationWindows, frame_slice
from pipeline.blended_denoiser import BlendedDenoiser, StepWindows, step_windows
from pipeline.guard import GuardWatch
from pipeline.oom_retry import without_first
from pipeline.sampler_state import ClipGuidance, SamplerState, begin_noise
from pipeline.step_plan import Action, StepPlan
from pipeline.window_denoiser import OpenDenoiser, WindowDenoiser, denoiser_for


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
) -> Iterator[SamplerState]:
    """Denoise a clip's latents from noise to the end of the schedule; give the state after each step.

    It is the same state object each time; if the caller changes its latents, the next step begins with those.
    StepPlanError: the plan is for a schedule of another length.
    """
    state = SamplerState(plan, scheduler, denoise.guidance, noise, frame_axis, draw)
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
        own = generator.windows.latent_frames(frames)
        state = self._guarded(lambda plan: self.blended(constants, frames, plan), constants, noise, draw, own)
        state.latents = own_latents(generator, state.latents, frames)
        return state

    def blended(self, constants: Constants, frames: int, plan: StepPlan | None = None) -> BlendedDenoiser:
        """Return the denoiser of a clip whose windows are blended, with the plan's overlaps.

        StepPlanError: the plan is for a schedule of another length.
        """
        generator, plan = self.generator, plan or self.plan or base_plan(self.generator)
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
        own: int | None = None,
    ) -> SamplerState:
        """Run the plan; from where its guard fires, run the base model's plan instead, from the noise again.

        own: latent frames of the clip; None: of a window, which is the base model's as a whole if it fires.
        Latents from there on are thrown away, because later steps do not repair the error of a wrong jump.
        """
        generator, base = self.generator, base_plan(self.generator)
        axis, plan, state = generator.frame_axis, self.plan or base, None
        denoise, watch = denoiser_of(plan), None
        if plan.guard:
            sampled = noise.shape[axis]
            watch = GuardWatch(plan.guard, axis, generator.per_frame, own or sampled, sampled)
            watch.constants(constants)
        if not (watch and watch.unlike and not (own and watch.unlike.begin)):
            state = self._run_until_unlike(denoise, noise, draw, plan, watch, own is None)
        if not (watch and watch.unlike):
            return state
        again, kept = denoiser_of(base), watch.unlike.begin if own else 0
        done = len(state.taken) if state else 0
        self.more(again.count(base) - denoise.count(plan) + denoise.count(plan, done))
        rest = self._run_until_unlike(again, noise, draw, base)
        if kept:
            first, second = (np.split(each.latents, [kept], axis) for each in (state, rest))
            rest.latents = np.concatenate([first[0], second[1]], axis)
        rest.unlike = watch.unlike.described()
        return rest

    def _run_until_unlike(
        self,
        denoise: BlendedDenoiser,
        noise: np.ndarray,
        draw: Draw,
        plan: StepPlan,
        watch: GuardWatch | None = None,
        whole: bool = False,
    ) -> SamplerState:
        """Run the loop; return the state at its end, or after the step that leaves no frame to the plan.

        whole: one unlike stretch is enough for that.
        """
        generator = self.generator
        for state in denoise_loop(denoise, generator.scheduler, noise, plan, generator.frame_axis, draw):
            if watch and state.predictions:
                watch.prediction(plan.evaluated.index(state.step), state.conditional, state.previous)
                if watch.unlike and (whole or not watch.unlike.begin):
                    break
        return state

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
            own = frame_slice(noise.ndim, generator.frame_axis, start, windows.length)
            drawn = lambda step: draw(step)[own]  # noqa: B023, E731
            state = self._guarded(lambda plan: denoise, seen, noise[own], drawn)  # noqa: B023
            known = windows.keep if number else 0  # frames that the window before has given already
            begin = number * (windows.frames - windows.keep) + known
            decoded = tail.watch(generator.decode(self.engines, state.latents))
            yield Segment(state, first_frames(without_first(decoded, known), frames - begin))


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


def base_plan(generator: Generator) -> StepPlan:
    """Return the base model's own plan: every step is F."""
    return StepPlan(Action.FULL.value * generator.scheduler.steps)


def evaluations(generator: Generator, frames: int, plan: StepPlan | None = None) -> int:
    """Return how many windows are evaluated for a clip: a Sampler's ticks, unless the guard fires."""
    plan = plan or base_plan(generator)
    return sum(plan.windows(step, generator.windows).count(frames) for step in plan.evaluated)


def own_latents(generator: Generator, latents: np.ndarray, frames: int) -> np.ndarray:
    """Return the latents of the clip's own frames, without those sampled only to fill the last window."""
    own = generator.windows.latent_frames(frames)
    return latents[frame_slice(latents.ndim, generator.frame_axis, 0, own)]


def first_frames(chunks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Give the chunks' first `frames` frames: the last latent frame may stand for more than the clip has."""
    for chunk in chunks:
        yield chunk[:frames]
        frames -= len(chunk)
        if frames <= 0:
            return
