"""Run a plan over a clip piece by piece, each piece as early as the windows allow.

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

from generators.contract import Generator
from generators.windows import Blend, frame_slice
from pipeline.blended_denoiser import StepWindows, branches_at, guidance_over, step_windows
from pipeline.frame_buffer import FrameBuffer, gather
from pipeline.guard_watch import GuardWatch
from pipeline.sampler import denoise_loop
from pipeline.sampler_state import SamplerState
from pipeline.step_plan import StepPlan
from pipeline.window_denoiser import WindowBranch, WindowDenoiser


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


class Pieces:
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
