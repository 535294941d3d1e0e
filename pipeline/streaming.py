"""Sample a clip piece by piece, with the frames of a run at once: the first come before the last are read.

A piece is a run of latent frames. Its denoising loop asks for a prediction at each step; then the windows
that its frames lie in are evaluated, and for those the loops of the pieces beside it go on to the same step.
So frames are final as early as the windows allow: a piece at step t needs its neighbours at step t - 1, and
these need theirs at t - 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engines.device_arrays import place_of
from generators.contract import Generator
from generators.windows import Blend, frame_slice
from pipeline.base_windows import reach_of, watch_of
from pipeline.blended_denoiser import StepWindows, branches_at, guidance_over, step_windows
from pipeline.frame_buffer import Conditions, FrameBuffer, gather, noise_of
from pipeline.guard_watch import GuardWatch
from pipeline.sampler import Sampler, denoise_loop, evaluations
from pipeline.sampler_state import SamplerState
from pipeline.step_plan import StepPlan, base_plan
from pipeline.window_denoiser import WindowBranch, WindowDenoiser


class StreamedClip:
    """A clip that is sampled piece by piece: `latents` gives its clean latents in order, as early as it can.

    They are those of Sampler.sample, bit for bit. sampler: gives generator, engines, plan and what is called.
    conditions: pieces of them, see Streaming.condition_pieces; they are asked for as windows need them. Where
    all windows share a frame, the first latents come when all are there; likewise for plans with H, whose
    features would be kept for all windows.

    taken, unlike: as in SamplerState; complete with the last latents, after which nobody need ask again.
    """

    def __init__(
        self, sampler: Sampler, conditions: Iterator[dict[str, np.ndarray]], frames: int, seed: int
    ) -> None:
        generator = sampler.generator
        plan, rule = sampler.plan or base_plan(generator), generator.windows
        self.taken, self._state = plan.actions, None
        self._sampler, self._plan, self._frames, self._seed = sampler, plan, frames, seed
        self._own, self._seen = rule.latent_frames(frames), rule.condition_indices(frames)
        self._watch = watch_of(generator, plan, frames)
        came = self._watch.constants if self._watch else lambda constants: None
        place = place_of(sampler.engines)
        count = rule.conditions(frames) if hasattr(rule, "seen") else self._seen.max() + 1
        self._conditions = Conditions(generator, conditions, int(count), came, place)
        self._noise = noise_of(generator, len(self._seen), seed, place)
        self._reach = reach_of(generator, frames)
        self._done = 0

    def latents(self) -> Iterator[np.ndarray]:
        """Give the clip's clean latents, piece by piece. FloatingPointError: numbers are not finite."""
        watch = self._watch
        if self._plan.deep_cache or watch and watch.clip.tied:
            self._state = self._sampler.sample(self._conditions.whole(), self._frames, self._seed)
            self.taken = self._state.taken
            yield self._state.latents
        elif not watch:
            yield from self._given(_Pieces(self._clip(self._plan)), self._own, self._own)
        else:
            yield from self._by_parts(_Pieces(self._clip(self._plan)), watch)
            if watch.whole:
                yield from self._by_base_plan()

    @property
    def unlike(self) -> str | None:
        """Why the guard had the base model's plan run, and where."""
        if self._state:
            return self._state.unlike
        return self._watch.described() if self._watch else None

    def _by_parts(self, pieces: _Pieces, watch: GuardWatch) -> Iterator[np.ndarray]:
        """Give the latents by plan and base plan; none where all of the clip is left to the base plan."""
        made = self._sampler.base_parts(self._conditions, self._frames, self._noise)
        for part in watch.parts(lambda frame: pieces.reach(frame, lambda: watch.whole)):
            if watch.whole:
                return
            needed = int(self._reach[self._reach[:, 1] >= part.begin, 0].min())
            if part.unlike:
                latents = made(part)
                pieces.drop(part.end)
                self._forget(needed)
                yield latents
            else:
                yield from self._given(pieces, part.end, needed)

    def _given(self, pieces: _Pieces, end: int, needed: int) -> Iterator[np.ndarray]:
        """Give the latents up to a frame as they come; forget what is before the frames that are needed."""
        while pieces.begin < end:
            latents = pieces.take(end)
            self._forget(min(pieces.end, needed))
            yield latents

    def _forget(self, before: int) -> None:
        """Drop noise before a frame, and conditions that only windows before it see."""
        rule = self._sampler.generator.windows
        self._noise.forget(before)
        # A window may see conditions of frames that are not its own: those whose place they take.
        seen = before - rule.length
        if hasattr(rule, "seen"):
            seen = self._reach[self._reach[:, 1] >= before, 2].min(initial=self._reach[-1, 2])
        self._conditions.forget(int(seen))

    def _by_base_plan(self) -> Iterator[np.ndarray]:
        """Give all latents by the base model's plan, from the noise."""
        generator, base = self._sampler.generator, base_plan(self._sampler.generator)
        planned, all_steps = (evaluations(generator, self._frames, plan) for plan in (self._plan, base))
        self._sampler.more(all_steps - (planned - self._done))
        self.taken = base.actions
        yield from self._given(_Pieces(self._clip(base)), self._own, self._own)

    def _clip(self, plan: StepPlan) -> PiecewiseClip:
        opened = self._sampler.window_denoiser(self._conditions, self._seen)
        watch, given = self._watch if plan is self._plan else None, (self._frames, self._noise)
        return PiecewiseClip(self._sampler.generator, opened, plan, *given, watch, self._tick)

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


class _Pieces:
    """The clean latents of a clip's pieces in order, made when they are asked for.

    begin: the frame that is taken next. end: of the pieces that are made.
    """

    def __init__(self, clip: PiecewiseClip) -> None:
        self.begin = self.end = 0
        self._coming, self._axis = iter(clip.pieces), clip.generator.frame_axis
        self._made: deque[np.ndarray] = deque()

    def reach(self, frame: int, enough: Callable[[], bool] = lambda: False) -> None:
        """Make all pieces that begin before a frame, until it is enough."""
        while self.end < frame and not enough():
            piece = next(self._coming)
            self._made.append(piece.finish())
            self.end = piece.end

    def take(self, end: int) -> np.ndarray:
        """Take the next frames, as many as a piece has, but none from `end` on."""
        self.reach(self.begin + 1)
        count = min(self._made[0].shape[self._axis], end - self.begin)
        taken, rest = np.split(self._made.popleft(), [count], self._axis)
        if rest.shape[self._axis]:
            self._made.appendleft(rest)
        self.begin += count
        return taken

    def drop(self, end: int) -> None:
        """Take all frames before `end`, and keep none."""
        while self.begin < end:
            self.take(end)


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
            given = scheduler, self.latents, clip.plan, axis
            self._loop = denoise_loop(self, *given, finite=clip.watch is None)
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
        if self._clip.watch:
            self._clip.watch.latents(latents, self.begin)
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
    """Which windows of a rule cover a piece, and which pieces a window covers, in order."""

    windows: dict[_Piece, list[int]]
    pieces: list[list[_Piece]]

    @classmethod
    def of(cls, pieces: Sequence[_Piece], indices: Sequence[np.ndarray]) -> _Cover:
        """Find them; a window may cover any frames in any order."""
        ends, windows, covered = np.array([piece.end for piece in pieces]), {}, []
        for number, own in enumerate(indices):
            found = [pieces[n] for n in np.unique(np.searchsorted(ends, own, "right"))]
            covered.append(found)
            for piece in found:
                windows.setdefault(piece, []).append(number)
        return cls(windows, covered)


def _borders(windows: Sequence[StepWindows]) -> list[tuple[int, int]]:
    """Return the first frame and the end of each piece: no run of a window begins elsewhere, at any step."""
    unique = {id(each): each for each in windows}.values()
    runs = [np.unique(indices) for each in unique for indices in each.indices]
    starts = sorted({0}.union(*(run[np.diff(run, prepend=-2) > 1].tolist() for run in runs)))
    return list(zip(starts, [*starts[1:], 1 + max(int(run[-1]) for run in runs)], strict=True))
