"""Sample a clip piece by piece, with the frames of a run at once: the first come before the last are read.

A piece is a run of latent frames. Its denoising loop asks for a prediction at each step; then the windows
that its frames lie in are evaluated, and for those the loops of the pieces beside it go on to the same step.
So frames are final as early as the windows allow: a piece at step t needs its neighbours at step t - 1, and
these need theirs at t - 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from engines.device_arrays import place_of
from generators.contract import Generator
from generators.windows import Blend, frame_slice
from pipeline.blended_denoiser import StepWindows, branches_at, guidance_over, step_windows
from pipeline.frame_buffer import Conditions, FrameBuffer, gather, noise_of
from pipeline.guard import GuardWatch
from pipeline.sampler import Sampler, base_plan, denoise_loop, evaluations
from pipeline.sampler_state import SamplerState
from pipeline.step_plan import StepPlan
from pipeline.window_denoiser import WindowBranch, WindowDenoiser


class StreamedClip:
    """A clip that is sampled piece by piece: `latents` gives its clean latents in order, as early as it can.

    They are those of Sampler.sample, bit for bit. sampler: gives generator, engines, plan and what is called.
    conditions: pieces of them, see Streaming.condition_pieces; they are asked for as windows need them. Where
    all windows share a frame, the first latents come when all are there.

    taken, unlike: as in SamplerState; complete with the last latents, after which nobody need ask again.
    """

    def __init__(
        self, sampler: Sampler, conditions: Iterator[dict[str, np.ndarray]], frames: int, seed: int
    ) -> None:
        generator = sampler.generator
        plan, axis = sampler.plan or base_plan(generator), generator.frame_axis
        self.taken = plan.actions
        self._sampler, self._plan, self._frames = sampler, plan, frames
        self._own = generator.windows.latent_frames(frames)
        seen = generator.windows.condition_indices(frames)
        sampled, count = len(seen), getattr(generator.windows, "conditions", lambda frames: seen.max() + 1)
        self._watch = None
        if plan.guard:
            self._watch = GuardWatch(plan.guard, axis, generator.per_frame, self._own, sampled)
        came = self._watch.constants if self._watch else lambda constants: None
        place = place_of(sampler.engines)
        self._conditions = Conditions(generator, conditions, int(count(frames)), came, place)
        self._noise = noise_of(generator, sampled, seed, place)
        self._done = 0

    def latents(self) -> Iterator[np.ndarray]:
        """Give the clip's clean latents, piece by piece. FloatingPointError: numbers are not finite."""
        clip, watch = self._clip(self._plan), self._watch
        waiting: deque[tuple[int, np.ndarray]] = deque()  # pieces of which it is not known if they are unlike
        for piece in clip.pieces:
            if watch and piece.begin >= self._trusted and watch.settled(self._trusted):
                break
            waiting.append((piece.begin, piece.finish()))
            while waiting and (not watch or watch.settled(min(self._end(*waiting[0]), self._trusted))):
                yield from self._given(*waiting.popleft(), 0, self._trusted)
        if self._trusted < self._own:
            yield from self._by_base_plan(self._trusted)

    @property
    def unlike(self) -> str | None:
        """Why the guard fired, if it did; frames that come later may bring a reason of a lower rank."""
        return self._watch.unlike.described() if self._watch and self._watch.unlike else None

    @property
    def _trusted(self) -> int:
        """The latent frames that are left to the plan: those before where its guard fires."""
        return self._watch.unlike.begin if self._watch and self._watch.unlike else self._own

    def _by_base_plan(self, begin: int) -> Iterator[np.ndarray]:
        """Give the latents from a frame on by the base model's plan, from the noise of all they depend on."""
        planned = evaluations(self._sampler.generator, self._frames, self._plan)
        self._sampler.more(self._base.reach(begin)[1] - (planned - self._done))
        self.taken = self._base.plan.actions
        for piece in self._base.pieces:
            if piece.end > begin:
                yield from self._given(piece.begin, piece.finish(), begin, self._own)

    def _given(self, at: int, latents: np.ndarray, begin: int, end: int) -> Iterator[np.ndarray]:
        """Give what of a piece that begins at `at` lies between two frames; forget what is not needed now."""
        axis = self._sampler.generator.frame_axis
        first, last = max(begin - at, 0), max(min(end, self._own) - at, 0)
        part = latents[frame_slice(latents.ndim, axis, first, last - first)]
        if last > first and part.shape[axis]:
            yield part
        keep = self._end(at, latents)
        if self._watch and not begin:
            keep = self._base.reach(min(keep, self._own - 1))[0]
        # A window may see conditions of frames that are not its own: those whose place they take.
        self._conditions.forget(keep - self._sampler.generator.windows.length)
        self._noise.forget(keep)

    def _end(self, at: int, latents: np.ndarray) -> int:
        return at + latents.shape[self._sampler.generator.frame_axis]

    @cached_property
    def _base(self) -> PiecewiseClip:
        """The clip by the base model's plan; nothing of it is sampled unless the guard fires."""
        return self._clip(base_plan(self._sampler.generator))

    def _clip(self, plan: StepPlan) -> PiecewiseClip:
        generator = self._sampler.generator
        seen = generator.windows.condition_indices(self._frames)
        opened = self._sampler.window_denoiser(self._conditions, seen)
        watch = self._watch if plan is self._plan else None
        return PiecewiseClip(generator, opened, plan, self._frames, self._noise, watch, self._tick)

    def _tick(self) -> None:
        self._done += 1
        self._sampler.tick()


class PiecewiseClip:
    """One run of a plan over a clip, piece by piece. For the arguments beside these, see Sampler.

    denoise: evaluates the clip's windows. noise: of its latents. watch: takes the predictions of each step.
    """

    def __init__(
        self,
        generator: Generator,
        denoise: WindowDenoiser,
        plan: StepPlan,
        frames: int,
        noise: FrameBuffer,
        watch: GuardWatch | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.generator, self.plan, self.watch, self.noise = generator, plan, watch, noise
        self.windows, self._denoise, self._tick = step_windows(generator, plan, frames), denoise, tick
        self.guidance = guidance_over(generator, generator.windows.condition_indices(frames))
        self.pieces = [_Piece(self, *border) for border in _borders(self.windows)]
        self._made: dict[tuple[int, int], list[np.ndarray]] = {}  # predictions by step and window
        self._waiting: dict[tuple[int, int], int] = {}  # how many pieces have yet to take them
        covers = {id(windows): _Cover.of(self.pieces, windows.indices) for windows in self.windows}
        self._covers = [covers[id(windows)] for windows in self.windows]

    def reach(self, frame: int) -> tuple[int, int]:
        """Return the first frame that pieces from this frame on depend on, and how many windows they take."""
        frame, count = max(piece.begin for piece in self.pieces if piece.begin <= frame), 0
        for step in reversed(self.plan.evaluated):
            reaching = self._covers[step].ends >= frame
            frame, count = int(self._covers[step].begins[reaching].min()), count + int(reaching.sum())
        return frame, count

    def predictions(self, piece: _Piece, step: int, action: str) -> tuple[np.ndarray, ...]:
        """Return the blended predictions of a piece's frames, as BlendedDenoiser does of all."""
        branches = branches_at(self.generator, action)
        if not branches:
            return ()
        rule, indices = self.windows[step]
        blends = [Blend(rule, piece.latents, self.generator.frame_axis, piece.begin) for _ in branches]
        for window in self._covers[step].windows[piece]:
            for blend, prediction in zip(blends, self._window(step, action, window), strict=True):
                blend.add(indices[window], prediction)
        return tuple(blend.result() for blend in blends)

    def _window(self, step: int, action: str, window: int) -> list[np.ndarray]:
        """Return a window's predictions by branch; evaluate it where no piece has asked for it before."""
        key, covered = (step, window), self._covers[step].pieces[window]
        if key not in self._made:
            for piece in covered:
                piece.advance(step)
            indices = self.windows[step].indices[window]
            wanted = [WindowBranch(window, indices, each) for each in branches_at(self.generator, action)]
            self._made[key] = list(self._denoise(_LatentsNow(covered), step, action, wanted))
            self._waiting[key] = len(covered)
            self._tick()
        self._waiting[key] -= 1
        if self._waiting[key]:
            return self._made[key]
        del self._waiting[key]
        return self._made.pop(key)


class _Piece:
    """A run of latent frames, and the denoiser of its own loop, which asks the clip for predictions."""

    def __init__(self, clip: PiecewiseClip, begin: int, end: int) -> None:
        self.begin, self.end, self._clip, self._taken = begin, end, clip, 0
        self._latents: np.ndarray | None = None
        guidance, axis = clip.guidance, clip.generator.frame_axis
        self.guidance = guidance
        if isinstance(guidance, np.ndarray):
            self.guidance = guidance[frame_slice(guidance.ndim, axis, begin, end - begin)]
        self._loop: Iterator[SamplerState] | None = None

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """Return the predictions of its frames at a step, as ClipDenoiser does."""
        return self._clip.predictions(self, step, action)

    @property
    def latents(self) -> np.ndarray:
        """Its latents after the steps taken so far."""
        if self._latents is None:
            indices = np.arange(self.begin, self.end)
            self._latents = self._clip.noise.take(indices, self._clip.generator.frame_axis)
        return self._latents

    def advance(self, steps: int) -> None:
        """Take steps until that many are taken."""
        clip = self._clip
        if self._loop is None:
            scheduler, axis = clip.generator.scheduler, clip.generator.frame_axis
            self._loop = denoise_loop(self, scheduler, self.latents, clip.plan, axis)
        while self._taken < steps:
            state = next(self._loop)
            self._latents, self._taken = state.latents, self._taken + 1
            if clip.watch and state.predictions:
                number = clip.plan.evaluated.index(state.step)
                clip.watch.prediction(number, state.conditional, state.previous, self.begin)

    def finish(self) -> np.ndarray:
        """Take all steps; return the clean latents, and keep nothing."""
        self.advance(self._clip.generator.scheduler.steps)
        latents, self._latents, self._loop = self._latents, None, None
        return latents


class _LatentsNow:
    """The latents of some pieces, as one array that windows are taken from."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces

    def take(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """Return those frames of the clip, as NumPy's take does along the frame axis."""
        begins = [piece.begin for piece in self._pieces]
        return gather(begins, [piece.latents for piece in self._pieces], indices, axis)


class _Cover(NamedTuple):
    """Which windows of a rule cover a piece, and which pieces a window covers, in order.

    begins, ends: the first and the last frame of each window.
    """

    windows: dict[_Piece, list[int]]
    pieces: list[list[_Piece]]
    begins: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, pieces: Sequence[_Piece], indices: Sequence[np.ndarray]) -> _Cover:
        """Find them; a window may cover any frames in any order."""
        ends, windows, covered = np.array([piece.end for piece in pieces]), {}, []
        for number, own in enumerate(indices):
            found = [pieces[n] for n in np.unique(np.searchsorted(ends, own, "right"))]
            covered.append(found)
            for piece in found:
                windows.setdefault(piece, []).append(number)
        bounds = np.array([(own.min(), own.max()) for own in indices])
        return cls(windows, covered, *bounds.T)


def _borders(windows: Sequence[StepWindows]) -> list[tuple[int, int]]:
    """Return the first frame and the end of each piece: no run of a window begins elsewhere, at any step."""
    unique = {id(each): each for each in windows}.values()
    runs = [np.unique(indices) for each in unique for indices in each.indices]
    starts = sorted({0}.union(*(run[np.diff(run, prepend=-2) > 1].tolist() for run in runs)))
    return list(zip(starts, [*starts[1:], 1 + max(int(run[-1]) for run in runs)], strict=True))
