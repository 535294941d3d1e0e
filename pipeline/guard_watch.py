"""Watch a clip for the guard of its step plan: which stretches are unlike the clips the plan was fitted to.

Constants of conditioning are compared before anything is sampled, and at each evaluated step how far the
prediction has changed since the evaluated step before. Neither costs an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engines.device_arrays import on_host
from pipeline.guard import STRETCH, Guard, Stretches, distances, powers, profile, ratio, stretches

LONGEST = 8  # times the least run that the base model's plan makes before the recipe's is asked again


class Unlike(NamedTuple):
    """Why a stretch of latent frames is unlike the tuning clips, and where it lies.

    rank: of the reason; of those for one stretch, the lowest is given, whichever was found first.
    """

    begin: int
    rank: int
    why: str


class Part(NamedTuple):
    """A run of latent frames; unlike: whether the base model's plan makes it, instead of the recipe's."""

    begin: int
    end: int
    unlike: bool


@dataclass(frozen=True)
class ClipForm:
    """What a guard needs to know of a clip.

    frame_axis: of the latents, and of the constants that per_frame names. own: latent frames of the clip.
    sampled: those that are sampled, some of them only to fill a window. window: frames of one. tied: each
    frame hangs on all. places: the latent frame of each frame that the constants have, `own` for none; None:
    they have those of the clip.
    """

    frame_axis: int
    per_frame: Collection[str]
    own: int
    sampled: int
    window: int = 1
    tied: bool = False
    places: np.ndarray | None = None


class GuardWatch:
    """The guard of one clip's run, which takes its frames as they come, in order, many or few at a time.

    It looks at stretches of frames (see `stretches`), each on its own, so that it takes the same frames for
    unlike whether a clip is sampled at once or piece by piece.
    """

    def __init__(self, guard: Guard, clip: ClipForm) -> None:
        self.clip, self._guard = clip, guard
        self._changes = {n: Stretches(clip.own) for n, limit in enumerate(guard.changes) if limit}
        self._finite = Stretches(clip.own)
        self._taken: dict[str, int] = {}  # frames of each constant
        self._constants: dict[str, Stretches] = {}  # of those that the clip has
        self._unlike: dict[int, Unlike] = {}  # by the stretch's first frame
        self._parts: list[Part] = []
        if clip.own < min(guard.shortest, clip.sampled):
            theirs = f"the shortest of theirs has {guard.shortest}"
            self._found(0, -1, f"it has {clip.own} latent frames, less than a window; {theirs}")

    @property
    def unlike(self) -> Unlike | None:
        """The first stretch that was found to be unlike, if any was."""
        return self._unlike[min(self._unlike)] if self._unlike else None

    @property
    def whole(self) -> bool:
        """Whether the base model's plan makes all of the clip: its first stretch is unlike, or it is tied."""
        return bool(self._unlike) and (self.clip.tied or 0 in self._unlike)

    def described(self) -> str | None:
        """Return why the clip is unlike, if it is, and which frames the base model's plan makes for it."""
        runs = [part for part in self._parts if part.unlike]
        if not self.unlike or self.whole or not runs:
            return self.unlike and self.unlike.why
        count = sum(part.end - part.begin for part in runs)
        where = f"{runs[0].begin} to {runs[0].end - 1}" + f" and others, {count}" * bool(runs[1:])
        return f"{self.unlike.why}, at latent frames {where} of {self.clip.own}"

    def parts(self, decide: Callable[[int], None] = lambda frame: None) -> Iterator[Part]:
        """Cut the clip into runs of frames that the plan makes, and runs that the base model's plan makes.

        Unlike stretches are such runs, of a window's frames at least. Where one follows the other, they are
        two, four, up to LONGEST times as long, even if not all is unlike in them: it costs less so.

        decide: is called with the end of a stretch before it is looked at, to have its frames taken first.
        """
        own, bounds, begin, number, self._parts = self.clip.own, stretches(self.clip.own), 0, 0, []
        least = together = -(-self.clip.window // STRETCH)
        while begin < own:
            decide(own if self.clip.tied else bounds[number].stop)
            if self.whole or self.clip.tied:
                end, unlike = own, self.whole
            elif unlike := bounds[number].start in self._unlike:
                number = min(number + together, len(bounds))
                end, together = bounds[number - 1].stop, min(2 * together, LONGEST * least)
            else:
                number, together = number + 1, least
                end = bounds[number].start if number < len(bounds) else own
            self._parts.append(Part(begin, end, unlike))
            yield self._parts[-1]
            begin = end

    def constants(self, constants: Mapping[str, np.ndarray]) -> None:
        """Take a clip's constants; of those that change over time, the frames after those taken before."""
        guard, clip = self._guard, self.clip
        rows_of = zip(guard.constants, guard.means, guard.spreads, guard.limits, strict=True)
        for rank, (name, means, spreads, limit) in enumerate(rows_of):
            if name not in constants:
                continue
            changing = name in clip.per_frame
            found = profile(constants[name], clip.frame_axis if changing else None)
            if found.shape[1] != len(means):
                self._found(0, rank, f"{name} has {found.shape[1]} parts instead of {len(means)}")
                continue
            stretches_of = self._constants.setdefault(name, Stretches(clip.own if changing else 1))
            at = self._taken.get(name, 0)
            self._taken[name] = at + len(found)
            frames = np.arange(at, at + len(found))
            if changing and clip.places is not None:
                frames = clip.places[frames]
            for begin, values in stretches_of.add(distances(found, means, spreads), frames):
                if not (far := float(values.mean())) <= limit:
                    why = f"{name} is {far:.1f} spreads from theirs (limit {limit:.1f})"
                    self._found(begin, rank, why)

    def prediction(self, number: int, new: np.ndarray, old: np.ndarray | None, at: int = 0) -> None:
        """Take the conditional prediction of the evaluated step `number` for latent frames from `at` on.

        old: the one of the evaluated step before; None at the first.
        """
        if old is None or number not in self._changes:
            return
        limit, rank = self._guard.changes[number], len(self._guard.constants) + number
        rows = powers(new, old, self.clip.frame_axis)
        for begin, values in self._changes[number].add(rows, np.arange(at, at + len(rows))):
            if not (found := ratio(values)) <= limit:
                why = f"the prediction changed by {found:.3f} (limit {limit:.3f})"
                self._found(begin, rank, why)

    def latents(self, latents: np.ndarray, at: int = 0) -> None:
        """Take the plan's clean latents for latent frames from `at` on; what is not finite is unlike."""
        finite = on_host(np.isfinite(np.moveaxis(latents, self.clip.frame_axis, 0)))
        rows = finite.reshape(len(finite), -1).all(1)
        rank = len(self._guard.constants) + len(self._guard.changes)
        for begin, values in self._finite.add(rows, np.arange(at, at + len(rows))):
            if not values.all():
                self._found(begin, rank, "the recipe's steps give numbers that are not finite")

    def _found(self, begin: int, *found: int | str) -> None:
        new = Unlike(begin, *found)
        self._unlike[begin] = min(self._unlike.get(begin, new), new)
