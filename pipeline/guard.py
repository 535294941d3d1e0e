"""The guard: detect clips that differ from those that a step plan was fitted to, at no evaluation's cost.

It compares the constants of conditioning before anything is sampled, and at each evaluated step how far the
prediction has changed since the evaluated step before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engines.device_arrays import on_host
from engines.errors import UsageError

PARTS = 16  # channel groups of a profile, at most
PLACES = 3  # a profile's regions per axis, over height and width
STRETCH = 16  # frames over which a mean is taken, and that are decided on together
LONGEST = 8  # stretches in a row that are the base model's before the plan is trusted again
TINY = float(np.finfo(np.float32).tiny)
ENOUGH = 5  # videos, of different people and motions
ALIKE = 0.04  # mean spread of a constant's parts; the presenter's pose has 0.09, its reference 0.19


class GuardError(UsageError):
    """Raised when a guard's settings do not fit together; the text says which and why."""


@dataclass(frozen=True)
class Guard:
    """Statistics of the tuning clips, and how far another clip may be from them; a recipe's table [guard].

    videos: number of tuning clips. changes: for each evaluated step, how far the conditional prediction may
    have changed since the one before, relative to its own size; 0 for the first, where nothing is compared.
    constants: names of arrays that the denoiser is conditioned on; for each of them, means and spreads of the
    parts of its profile over frames, and the limit of a clip's distance in spreads. shortest: latent frames
    of the shortest tuning clip; a clip that is shorter and does not fill a window is unlike them. GuardError.
    """

    videos: int
    changes: tuple[float, ...]
    constants: tuple[str, ...] = ()
    means: tuple[tuple[float, ...], ...] = ()
    spreads: tuple[tuple[float, ...], ...] = ()
    limits: tuple[float, ...] = ()
    shortest: int = 0

    def __post_init__(self) -> None:
        for name in ("means", "spreads"):
            object.__setattr__(self, name, tuple(tuple(map(float, row)) for row in getattr(self, name)))
        for name in ("changes", "limits"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        object.__setattr__(self, "constants", tuple(self.constants))
        if type(self.videos) is not int or self.videos < 1:
            raise GuardError(f"videos: must be how many the plan was tuned on, is {self.videos!r}")
        if type(self.shortest) is not int:
            raise GuardError(f"shortest: must be a number of latent frames, is {self.shortest!r}")
        counts = {len(self.constants), len(self.means), len(self.spreads), len(self.limits)}
        if len(counts) > 1 or any(len(m) != len(s) for m, s in zip(self.means, self.spreads, strict=True)):
            raise GuardError("constants, means, spreads and limits: must have an entry for each constant")
        numbers = [*self.changes, *self.limits, *(n for row in self.means + self.spreads for n in row)]
        if not all(math.isfinite(n) for n in numbers) or any(s <= 0 for row in self.spreads for s in row):
            raise GuardError("spreads: must be above 0, and all numbers finite; tune again")

    @property
    def doubts(self) -> list[str]:
        """Sentences on why the tuning clips may not represent other videos; empty if there is no reason."""
        found = []
        if self.videos < ENOUGH:
            found.append(
                f"tuned on {self.videos} video{'s' * (self.videos > 1)}: with fewer than {ENOUGH} it is not "
                "known how others differ, and the guard's limits are guesses; add other people and motions"
            )
        for name, spreads in zip(self.constants, self.spreads, strict=True):
            mean = sum(spreads) / len(spreads)
            if mean < ALIKE:
                found.append(
                    f"the tuning videos are alike in {name} (sizes of its parts differ by {mean:.1%}, less "
                    f"than {ALIKE:.0%}): the guard will fire on most others; add videos that differ in it"
                )
        return found


class Unlike(NamedTuple):
    """Why a stretch of latent frames is unlike the tuning clips, and where it lies.

    rank: of the reason; of those for one stretch, the lowest is given, whichever was found first.
    """

    begin: int
    rank: int
    why: str


class Part(NamedTuple):
    """A run of latent frames that one plan makes; unlike: the base model's, since they are that."""

    begin: int
    end: int
    unlike: bool


class GuardWatch:
    """The guard of one clip's run, which takes its frames as they come, in order, many or few at a time.

    It looks at stretches of frames (see `stretches`), each on its own, so it decides alike whether a clip is
    sampled at once or piece by piece.

    frame_axis: of the latents, and of the constants that per_frame names. own: latent frames of the clip,
    which these constants have. sampled: those that are sampled, some of them only to fill a window. tied:
    each frame hangs on all, so that one unlike stretch has the clip made by the base model's plan as a whole.
    """

    def __init__(
        self,
        guard: Guard,
        frame_axis: int,
        per_frame: Collection[str],
        own: int,
        sampled: int,
        tied: bool = False,
    ) -> None:
        self._guard, self._frame_axis, self._per_frame, self._tied = guard, frame_axis, per_frame, tied
        self._changes = {n: _Stretches(own) for n, limit in enumerate(guard.changes) if limit}
        self._taken: dict[str, int] = {}  # frames of each constant
        self._constants: dict[str, _Stretches] = {}  # of those that the clip has
        self._unlike: dict[int, Unlike] = {}  # by the stretch's first frame
        self._parts: list[Part] = []
        self._own = own
        if own < min(guard.shortest, sampled):
            theirs = f"the shortest of theirs has {guard.shortest}"
            self._found(0, -1, f"it has {own} latent frames, less than a window; {theirs}")

    @property
    def unlike(self) -> Unlike | None:
        """The first stretch that was found to be unlike, if any was."""
        return self._unlike[min(self._unlike)] if self._unlike else None

    @property
    def whole(self) -> bool:
        """Whether all of the clip is left to the base model's plan: it is unlike from its first frame on."""
        return bool(self._unlike) and (self._tied or 0 in self._unlike)

    def described(self) -> str | None:
        """Return why and where the clip is unlike, if it is; complete after `parts` have ended."""
        if not self.unlike or self.whole:
            return self.unlike and self.unlike.why
        first, *others = [part for part in self._parts if part.unlike]
        count = sum(part.end - part.begin for part in (first, *others))
        where = f"{first.begin} to {first.end - 1}" + f" and others, {count}" * bool(others)
        return f"{self.unlike.why}, at latent frames {where} of {self._own}"

    def parts(self, decide: Callable[[int], None] = lambda frame: None) -> Iterator[Part]:
        """Cut the clip into runs of frames that the plan makes, and runs that the base model's plan makes.

        These are the stretches that are unlike. Of such in a row, two, four, up to LONGEST are one run, even
        if not all of them are unlike, as it costs less than each on its own.

        decide: is called with the end of a stretch before it is looked at, to have its frames taken first.
        """
        bounds, begin, number, together = stretches(self._own), 0, 0, 1
        while begin < self._own:
            decide(self._own if self._tied else bounds[number].stop)
            if self.whole or self._tied:
                end, unlike = self._own, self.whole
            elif unlike := bounds[number].start in self._unlike:
                number = min(number + together, len(bounds))
                end, together = bounds[number - 1].stop, min(2 * together, LONGEST)
            else:
                number, together = number + 1, 1
                end = bounds[number].start if number < len(bounds) else self._own
            self._parts.append(Part(begin, end, unlike))
            yield self._parts[-1]
            begin = end

    def constants(self, constants: Mapping[str, np.ndarray]) -> None:
        """Take a clip's constants; of those that change over time, the frames after those taken before."""
        guard, taken = self._guard, self._taken
        rows_of = zip(guard.constants, guard.means, guard.spreads, guard.limits, strict=True)
        for rank, (name, means, spreads, limit) in enumerate(rows_of):
            if name not in constants:
                continue
            found = profile(constants[name], self._frame_axis if name in self._per_frame else None)
            if found.shape[1] != len(means):
                self._found(0, rank, f"{name} has {found.shape[1]} parts instead of {len(means)}")
                continue
            frames = self._own if name in self._per_frame else 1
            stretches_of = self._constants.setdefault(name, _Stretches(frames))
            at = taken.get(name, 0)
            rows = distances(found, means, spreads)[: frames - at]
            taken[name] = at + len(rows)
            for begin, values in stretches_of.add(rows, at):
                if not (far := float(values.mean())) <= limit:
                    why = f"{name} is {far:.1f} spreads from theirs (limit {limit:.1f})"
                    self._found(begin, rank, why)

    def prediction(self, number: int, new: np.ndarray, old: np.ndarray | None, at: int = 0) -> None:
        """Take the conditional prediction of the evaluated step `number` for latent frames from `at` on.

        old: the one of the evaluated step before; None at the first.
        """
        if old is None or number not in self._changes or at >= self._own:
            return
        limit, rank = self._guard.changes[number], len(self._guard.constants) + number
        rows = powers(new, old, self._frame_axis)[: self._own - at]
        for begin, values in self._changes[number].add(rows, at):
            if not (found := _ratio(values)) <= limit:
                why = f"the prediction changed by {found:.3f} (limit {limit:.3f})"
                self._found(begin, rank, why)

    def _found(self, begin: int, *found: int | str) -> None:
        new = Unlike(begin, *found)
        self._unlike[begin] = min(self._unlike.get(begin, new), new)


class _Stretches:
    """Numbers of each frame of a clip, and the stretches that they complete."""

    def __init__(self, frames: int) -> None:
        self._open, self._come = stretches(frames), np.zeros(frames, bool)
        self._rows: np.ndarray | None = None

    def add(self, rows: np.ndarray, begin: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Take the rows of frames from `begin` on; give the stretches that are complete now, with begin."""
        if self._rows is None:
            self._rows = np.zeros((len(self._come), *rows.shape[1:]))
        own = slice(begin, begin + len(rows))
        self._rows[own], self._come[own] = rows, True
        for each in [each for each in self._open if each.start < own.stop and self._come[each].all()]:
            self._open.remove(each)
            yield each.start, self._rows[each]


def profile(array: np.ndarray, frame_axis: int | None) -> np.ndarray:
    """Return (F, parts): for each frame, log root mean squares of channel groups and of regions.

    There are at most PARTS groups of neighbouring channels, and PLACES x PLACES regions of height and width.
    frame_axis: None for an array that is the same in all frames, which gives one row. Channels are on axis 1,
    or 2 where frames are on 1; height and width, if there are two more axes, are the last two.
    """
    frames = array[None] if frame_axis is None else np.moveaxis(array, frame_axis, 0)  # (F, 1, C, ...)
    found = np.stack([_profile(frame.copy()) for frame in frames])  # sums in the same order
    return on_host(found)


def _profile(frame: np.ndarray) -> np.ndarray:
    """Return the row (parts,) of one frame (1, C, ...)."""
    powers = np.square(frame, dtype=np.float64).mean(0)
    channels = powers.reshape(len(powers), -1).mean(1)
    parts = [run.mean() for run in np.array_split(channels, min(PARTS, len(channels)))]
    if powers.ndim == 3:
        regions = powers.mean(0)  # (h, w)
        for row in np.array_split(regions, min(PLACES, regions.shape[0])):
            parts += [each.mean() for each in np.array_split(row, min(PLACES, row.shape[1]), 1)]
    return np.log(np.maximum(np.stack(parts), TINY)) / 2


def distances(found: np.ndarray, means: Sequence[float], spreads: Sequence[float]) -> np.ndarray:
    """Return each frame's distance in spreads of a profile (F, parts): the root mean square of its parts."""
    return np.sqrt(np.mean(np.square((found - np.array(means)) / np.array(spreads)), 1))


def distance(found: np.ndarray, means: Sequence[float], spreads: Sequence[float]) -> float:
    """Return the distance of a profile, that of its worst stretch."""
    return max(float(values.mean()) for _, values in _over_stretches(distances(found, means, spreads)))


def powers(new: np.ndarray, old: np.ndarray, frame_axis: int) -> np.ndarray:
    """Return (F, 2): each frame's mean square of new - old, and of new."""
    pairs = zip(np.moveaxis(new, frame_axis, 0), np.moveaxis(old, frame_axis, 0), strict=True)
    means = [mean for a, b in pairs for mean in (np.square(a - b).mean(), np.square(a).mean())]
    return on_host(np.stack(means)).reshape(-1, 2)


def change(new: np.ndarray, old: np.ndarray, frame_axis: int) -> float:
    """Return the root mean square of new - old relative to that of new, in the stretch with the largest."""
    return max(_ratio(values) for _, values in _over_stretches(powers(new, old, frame_axis)))


def _ratio(values: np.ndarray) -> float:
    """Return a stretch's root mean square of the change relative to that of the new value, see `powers`."""
    changed, whole = values.mean(0)
    return float(np.sqrt(changed / max(whole, TINY)))


def _over_stretches(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    return _Stretches(len(rows)).add(rows)


def stretches(frames: int) -> list[slice]:
    """Return runs of STRETCH frames that cover a clip, the last moved back; one run for a shorter clip."""
    last = max(frames - STRETCH, 0)
    return [slice(start, min(start + STRETCH, frames)) for start in (*range(0, last, STRETCH), last)]
