"""Sample clips with the denoising loop: windows blended at each step, or sampled one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from generators.contract import Constants, Engines, Generator, branches_of
from generators.samplers import Draw, Scheduler
from generators.windows import Blend, ContinuationWindows, WindowRule, frame_slice
from pipeline.oom_retry import without_first
from pipeline.sampler_state import ClipGuidance, SamplerState, begin_noise
from pipeline.step_plan import Action, StepPlan
from pipeline.window_denoiser import OpenDenoiser, WindowBranch, WindowDenoiser, denoiser_for


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


class StepWindows(NamedTuple):
    """The windows of a clip at one step: their rule, and for each window the indices of its latent frames."""

    rule: WindowRule | ContinuationWindows
    indices: Sequence[np.ndarray]


class BlendedDenoiser:
    """A ClipDenoiser that evaluates each window and blends the predictions.

    denoise: evaluates windows. condition_indices: for each latent frame, the index of the conditions it sees.
    windows: for each step of the schedule. tick: called after every evaluated window.
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
        """Return the conditional prediction, at F and H the other branches' too; an empty tuple at S.

        At guidance 1 the unconditional branch cancels and is not evaluated. EngineError: the action is H, and
        the window denoiser cannot do it.
        """
        branches = branches_of(self._generator.guidance)[: Action(action).evaluated]
        rule, indices = self._step_windows[step]
        wanted = [WindowBranch(n, own, branch) for n, own in enumerate(indices) for branch in branches]
        blends = {branch: Blend(rule, latents, self._generator.frame_axis) for branch in branches}
        for each, prediction in zip(wanted, self.windows(latents, step, action, wanted), strict=True):
            blends[each.conditional].add(each.indices, prediction)
            if each.conditional == branches[-1]:
                self._tick()
        return tuple(blend.result() for blend in blends.values())

    def count(self, plan: StepPlan, steps: int | None = None) -> int:
        """Return how many windows a plan evaluates, in all its steps or in the first `steps` of them."""
        return sum(
            len(self._step_windows[step].indices) for step in plan.evaluated if steps is None or step < steps
        )


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
        noise, draw = begin_noise(generator, len(generator.windows.condition_indices(frames)), seed)
        state = self._guarded(lambda plan: self.blended(constants, frames, plan), constants, noise, draw)
        state.latents = own_latents(generator, state.latents, frames)
        return state

    def blended(self, constants: Constants, frames: int, plan: StepPlan | None = None) -> BlendedDenoiser:
        """Return the denoiser of a clip whose windows are blended, with the plan's overlaps.

        StepPlanError: the plan is for a schedule of another length.
        """
        generator, plan = self.generator, plan or self.plan or base_plan(self.generator)
        own, steps = generator.windows, generator.scheduler.steps
        plan.check_steps(steps)
        rules = [plan.windows(step, own) for step in range(steps)]
        windows = [StepWindows(rule, rule.window_indices(frames)) for rule in rules]
        return self._denoiser(constants, own.condition_indices(frames), windows)

    def _denoiser(
        self, constants: Constants, condition_indices: np.ndarray, windows: Sequence[StepWindows]
    ) -> BlendedDenoiser:
        open_denoiser = self.open_denoiser or denoiser_for(self.plan)
        denoise = open_denoiser(self.generator, self.engines, constants, condition_indices)
        return BlendedDenoiser(self.generator, denoise, condition_indices, windows, self.tick)

    def _guarded(
        self,
        denoiser_of: Callable[[StepPlan], BlendedDenoiser],
        constants: Constants,
        noise: np.ndarray,
        draw: Draw,
    ) -> SamplerState:
        """Run the plan; if its guard fires, run the base model's plan instead, from the noise again.

        The work until then is thrown away, because later steps do not repair the error of a wrong jump.
        """
        generator, base = self.generator, base_plan(self.generator)
        plan, done = self.plan or base, 0
        denoise = denoiser_of(plan)
        unlike = plan.guard and plan.guard.unlike(constants, generator.frame_axis, generator.per_frame)
        if not unlike:
            state = self._run_until_unlike(denoise, noise, draw, plan)
            unlike, done = state.unlike, len(state.taken)
        if not unlike:
            return state
        again = denoiser_of(base)
        self.more(again.count(base) - denoise.count(plan) + denoise.count(plan, done))
        state = self._run_until_unlike(again, noise, draw, base)
        state.unlike = unlike
        return state

    def _run_until_unlike(
        self, denoise: BlendedDenoiser, noise: np.ndarray, draw: Draw, plan: StepPlan
    ) -> SamplerState:
        """Run the loop; return the state at its end, or after the step at which the plan's guard fires."""
        axis = self.generator.frame_axis
        for state in denoise_loop(denoise, self.generator.scheduler, noise, plan, axis, draw):
            if plan.guard and state.predictions:
                number = plan.evaluated.index(state.step)
                state.unlike = plan.guard.changed(number, state.conditional, state.previous, axis)
                if state.unlike:
                    break
        return state

    def _continued(self, constants: Constants, frames: int, seed: int) -> Iterator[Segment]:
        """Sample one window after the other, each continued from the last frames of the one before."""
        generator, windows = self.generator, self.generator.windows
        count, every = windows.count(frames), np.arange(windows.length)
        (noise, draw), tail = begin_noise(generator, windows.length * count, seed), Tail(windows.keep)
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


def _guidance_over(generator: Generator, condition_indices: np.ndarray) -> ClipGuidance:
    """Return the generator's guidance; where it changes over a clip, that of each latent frame (5 axes)."""
    if not isinstance(generator.guidance, tuple):
        return generator.guidance
    own = np.linspace(*generator.guidance, condition_indices.max() + 1, dtype=np.float32)
    shape = [1] * 5
    shape[generator.frame_axis] = -1
    return own[condition_indices].reshape(shape)
