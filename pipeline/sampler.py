"""Sample clips: the denoising loop, windows blended at each step, or windows one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from generators.contract import Constants, Engines, Generator
from generators.samplers import Scheduler
from generators.windows import Blend, ContinuationWindows, WindowRule, frame_slice
from pipeline.oom_retry import without_first
from pipeline.sampler_state import SamplerState
from pipeline.step_plan import Action, StepPlan
from pipeline.window_denoiser import OpenDenoiser, WindowBranch, WindowDenoiser, denoiser_for


class ClipDenoiser(Protocol):
    """What predicts for all latent frames of a clip at once. guidance: as SamplerState takes it."""

    guidance: float | np.ndarray

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The conditional prediction, and at F and H the unconditional one too; none at S."""
        ...


def denoise_loop(
    denoise: ClipDenoiser, scheduler: Scheduler, noise: np.ndarray, plan: StepPlan, frame_axis: int = 2
) -> Iterator[SamplerState]:
    """Take a clip's latents from noise to the end of the schedule; the state is shown after each step.

    It is one state, and what a caller changes of its latents is what the next step begins with.
    StepPlanError: the plan is for another schedule.
    """
    state = SamplerState(plan, scheduler, denoise.guidance, noise, frame_axis)
    for step, action in enumerate(plan.actions):
        predictions = denoise(state.latents, step, action)
        state.advance(step, *predictions)
        yield state


class StepWindows(NamedTuple):
    """Windows of a clip at one step: their rule, and the indices of each one's latent frames."""

    rule: WindowRule | ContinuationWindows
    indices: Sequence[np.ndarray]


class BlendedDenoiser:
    """Predicts for a whole clip: each window is evaluated, then they are blended.

    denoise: evaluates windows. condition_indices: for each latent frame that of the conditions it sees.
    windows: for each step of the schedule. tick is called after every evaluated window.
    """

    def __init__(
        self,
        generator: Generator,
        denoise: WindowDenoiser,
        condition_indices: np.ndarray,
        windows: Sequence[StepWindows],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.frames, self.windows = len(condition_indices), denoise
        self.guidance = _guidance_over(generator, condition_indices)
        self._generator, self._step_windows, self._tick = generator, windows, tick

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The conditional prediction, and at F and H the unconditional one too; none at S.

        At guidance 1 the unconditional branch cancels and is not evaluated. EngineError: H, and what
        evaluates windows cannot do it.
        """
        count = 1 if self._generator.guidance == 1.0 else 2
        branches = (True, False)[: min(count, Action(action).branches)]
        rule, indices = self._step_windows[step]
        wanted = [WindowBranch(n, own, branch) for n, own in enumerate(indices) for branch in branches]
        blends = {branch: Blend(rule, latents, self._generator.frame_axis) for branch in branches}
        for each, prediction in zip(wanted, self.windows(latents, step, action, wanted), strict=True):
            blends[each.conditional].add(each.indices, prediction)
            if each.conditional is branches[-1]:
                self._tick()
        return tuple(blend.result() for blend in blends.values())

    def count(self, plan: StepPlan, steps: int | None = None) -> int:
        """How many windows that plan has evaluated, in its first steps or in all."""
        return sum(
            len(self._step_windows[step].indices) for step in plan.evaluated if steps is None or step < steps
        )


@dataclass(frozen=True)
class Segment:
    """A stretch of a clip that was sampled at once: its state, and its pixels, decoded when asked for."""

    state: SamplerState
    pixels: Iterator[np.ndarray]


@dataclass(frozen=True)
class Sampler:
    """How clips are sampled.

    plan: None: the base model's own. open_denoiser: what evaluates windows, made anew for each clip; None: as
    the plan needs it. tick is called after every evaluated window, more with how many there are beyond the
    plan's where its guard fires.
    """

    generator: Generator
    engines: Engines
    plan: StepPlan | None = None
    open_denoiser: OpenDenoiser | None = None
    tick: Callable[[], None] = lambda: None
    more: Callable[[int], None] = lambda count: None

    def segments(self, constants: Constants, frames: int, seed: int) -> Iterator[Segment]:
        """Sample a clip of `frames` frames, by the generator's window rule: at once, or window by window.

        A segment's pixels must have been taken before the next one is asked for. StepPlanError: the plan is
        for another schedule.
        """
        if isinstance(self.generator.windows, ContinuationWindows):
            yield from self._continued(constants, frames, seed)
        else:
            state = self.sample(constants, frames, seed)
            pixels = self.generator.decode(self.engines, state.latents)
            yield Segment(state, first_frames(pixels, frames))

    def sample(self, constants: Constants, frames: int, seed: int) -> SamplerState:
        """Sample a clip whose windows are blended; the latents are the clean ones of its frames."""
        generator = self.generator
        noise = generator.noise(len(generator.windows.condition_indices(frames)), seed)
        state = self._guarded(lambda plan: self.blended(constants, frames, plan), constants, noise)
        state.latents = own_latents(generator, state.latents, frames)
        return state

    def blended(self, constants: Constants, frames: int, plan: StepPlan | None = None) -> BlendedDenoiser:
        """What predicts for a clip whose windows are blended, and overlap as the plan says."""
        generator, plan = self.generator, plan or self.plan or base_plan(self.generator)
        own, steps = generator.windows, generator.scheduler.steps
        plan.check_steps(steps)
        rules = [plan.windows(step, own) for step in range(steps)]
        windows = [StepWindows(rule, rule.window_indices(frames)) for rule in rules]
        return self._predicting(constants, own.condition_indices(frames), windows)

    def _predicting(
        self, constants: Constants, condition_indices: np.ndarray, windows: Sequence[StepWindows]
    ) -> BlendedDenoiser:
        open_denoiser = self.open_denoiser or denoiser_for(self.plan)
        denoise = open_denoiser(self.generator, self.engines, constants, condition_indices)
        return BlendedDenoiser(self.generator, denoise, condition_indices, windows, self.tick)

    def _guarded(
        self, predicting: Callable[[StepPlan], BlendedDenoiser], constants: Constants, noise: np.ndarray
    ) -> SamplerState:
        """Run the loop by the plan; where its guard fires, by the base model's own, from the noise again.

        What was done until then is thrown away: what a wrong jump has spoilt, later steps do not mend.
        """
        generator, base = self.generator, base_plan(self.generator)
        plan, done = self.plan or base, 0
        denoise = predicting(plan)
        unlike = plan.guard and plan.guard.unlike(constants, generator.frame_axis, generator.per_frame)
        if not unlike:
            state = self._until_unlike(denoise, noise, plan)
            unlike, done = state.unlike, len(state.taken)
        if not unlike:
            return state
        again = predicting(base)
        self.more(again.count(base) - denoise.count(plan) + denoise.count(plan, done))
        state = self._until_unlike(again, noise, base)
        state.unlike = unlike
        return state

    def _until_unlike(self, denoise: BlendedDenoiser, noise: np.ndarray, plan: StepPlan) -> SamplerState:
        """The state at the end of the loop, or after the step at which the plan's guard fires."""
        axis = self.generator.frame_axis
        for state in denoise_loop(denoise, self.generator.scheduler, noise, plan, axis):
            if plan.guard and state.predictions:
                number = plan.evaluated.index(state.step)
                state.unlike = plan.guard.changed(number, state.terms[1], state.terms[3], axis)
                if state.unlike:
                    break
        return state

    def _continued(self, constants: Constants, frames: int, seed: int) -> Iterator[Segment]:
        """Sample one window after the other, each going on from the last frames of the one before."""
        generator, windows = self.generator, self.generator.windows
        count, every = windows.count(frames), np.arange(windows.length)
        noise, tail = generator.noise(windows.length * count, seed), Tail(windows.keep)
        steps = [StepWindows(windows, [every])] * generator.scheduler.steps
        for number in range(count):
            seen = generator.carry(self.engines, constants, number, tail.pixels if number else None)
            denoise = self._predicting(seen, every, steps)
            start = number * windows.length
            begun = noise[frame_slice(noise.ndim, generator.frame_axis, start, windows.length)]
            state = self._guarded(lambda plan: denoise, seen, begun)  # noqa: B023
            known = windows.keep if number else 0  # frames that the window before has shown
            begin = number * (windows.frames - windows.keep) + known
            decoded = tail.watching(generator.decode(self.engines, state.latents))
            yield Segment(state, first_frames(without_first(decoded, known), frames - begin))


class Tail:
    """The last frames of what passes by."""

    def __init__(self, length: int) -> None:
        self._length, self.pixels = length, None

    def watching(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The chunks; pixels are the last frames of those that were taken."""
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
) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 of a clip that is held in memory.

    skeletons (F, H, W, 3) and image (H, W, 3) are at the generator's size already.
    """
    chunks = np.split(skeletons, range(generator.chunk, len(skeletons), generator.chunk))
    constants = generator.condition(engines, chunks, image[None])
    segments = Sampler(generator, engines, plan).segments(constants, len(skeletons), seed)
    return np.concatenate([chunk for segment in segments for chunk in segment.pixels])


def base_plan(generator: Generator) -> StepPlan:
    """The base model's own run: every step in full."""
    return StepPlan(Action.FULL.value * generator.scheduler.steps)


def evaluations(generator: Generator, frames: int, plan: StepPlan | None = None) -> int:
    """How many windows are evaluated for a clip: the ticks of a sampler, unless a guard asks for more."""
    plan = plan or base_plan(generator)
    return sum(plan.windows(step, generator.windows).count(frames) for step in plan.evaluated)


def own_latents(generator: Generator, latents: np.ndarray, frames: int) -> np.ndarray:
    """Those of the clip itself, without what was sampled to fill windows."""
    own = generator.windows.latent_frames(frames)
    return latents[frame_slice(latents.ndim, generator.frame_axis, 0, own)]


def first_frames(chunks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Chunks up to that many frames: the last group of a clip's latents may stand for more than it has."""
    for chunk in chunks:
        yield chunk[:frames]
        frames -= len(chunk)
        if frames <= 0:
            return


def _guidance_over(generator: Generator, condition_indices: np.ndarray) -> float | np.ndarray:
    """The generator's guidance, or where it changes over a clip that of each latent frame."""
    if not isinstance(generator.guidance, tuple):
        return generator.guidance
    own = np.linspace(*generator.guidance, condition_indices.max() + 1, dtype=np.float32)
    shape = [1] * 5
    shape[generator.frame_axis] = -1
    return own[condition_indices].reshape(shape)
