"""Which frames of a video are not worth showing: black, frozen, blurred, shaken or repeated stretches."""

from __future__ import annotations

import numpy as np

from finish.watching import Watched

SHORTEST = 0.4  # seconds: shorter stretches stay, for a gap in the middle shows more than they do
DARK, FLAT = 28.0, 9.0  # levels: mean and deviation of a black frame at the most
FROZEN, HELD = 0.15, 0.7  # levels of change of a frozen frame at the most, seconds that it lasts at least
POOR = 0.22  # of the cover network's score below the middle of the video
SHAKEN = 0.012  # of the width: mean change of the camera's speed from frame to frame
SPAN = 0.5  # seconds that shaking is averaged over
REPEATED, ALIKE = 2.0, 0.3  # seconds of a repetition; its differences in parts of its own changes
LIVELY = 3.0  # levels that a stretch changes by, so that its repetition is no accident
USUAL = 0.5  # of the video: what is more frequent is its manner, no flaw
# What goes first: what is found most surely, and shows least.
WEIGHTS = {"black": 5.0, "frozen": 4.0, "shaken": 3.0, "repeated": 2.0, "blurred": 1.0}


def kept(watched: Watched, most: float) -> np.ndarray:
    """Frames (N,) bool that stay; no more than a part `most` of the video goes, the worst first."""
    bad = np.max([WEIGHTS[name] * which for name, which in flaws(watched).items()], axis=0)
    stay, room, dark = np.ones(len(bad), bool), int(most * len(bad)), bad > 0
    stretches = [(a, b) for a, b in spans(dark) if watched.begins[b] - watched.begins[a] >= SHORTEST]
    for first, last in sorted(stretches, key=lambda each: -float(bad[slice(*each)].mean())):
        last = min(last, first + room)
        if watched.begins[last] - watched.begins[first] >= SHORTEST:
            stay[first:last] = False
            room -= last - first
    return stay


def flaws(watched: Watched) -> dict[str, np.ndarray]:
    """Frames (N,) bool that have each flaw; none has one that most of the video has."""
    found = {
        "black": (watched.light < DARK) & (watched.contrast < FLAT),
        "frozen": _frozen(watched),
        "repeated": _repeated(watched),
        "blurred": _blurred(watched),
        "shaken": _shaken(watched),
    }
    return {name: which & (which.mean() < USUAL) for name, which in found.items()}


def spans(which: np.ndarray) -> list[tuple[int, int]]:
    """First and last (not included) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], which.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _frozen(watched: Watched) -> np.ndarray:
    """All but the first frame of each long run without change; a black one is no picture to freeze."""
    found = np.zeros(len(watched.cut), bool)
    for first, last in spans((watched.change < FROZEN) & (np.arange(len(found)) > 0)):
        found[first:last] = watched.begins[last] - watched.begins[first] >= HELD
    return found


def _blurred(watched: Watched) -> np.ndarray:
    """Frames whose look, and the next one, score far below the middle of the video."""
    poor = watched.quality < np.median(watched.quality) - POOR
    return poor[_look_of(watched)]


def _shaken(watched: Watched) -> np.ndarray:
    """Frames around which the camera's speed changes much; a cut is no movement."""
    jerk = np.abs(np.diff(watched.shift, axis=0, prepend=watched.shift[:1])).sum(1)
    for n in np.flatnonzero(watched.cut):
        jerk[n : n + 2] = 0
    rate = len(watched.cut) / (watched.begins[-1] - watched.begins[0])
    wide = max(1, round(SPAN * rate)) | 1
    around = np.convolve(np.minimum(jerk, 4 * SHAKEN), np.ones(wide) / wide, "same")[: len(jerk)]
    return around > SHAKEN


def _repeated(watched: Watched) -> np.ndarray:
    """Frames of stretches that were shown before: the same changes in the same order."""
    found, thumbs = np.zeros(len(watched.looks), bool), watched.thumbs
    times = watched.begins[watched.looks]
    rate = len(times) / max(times[-1] - times[0], 1e-6)
    long = round(REPEATED * rate)
    step, power = max(1, long // 4), (thumbs * thumbs).sum(1)
    for at in range(long, len(thumbs) - long + 1, step):
        part = thumbs[at : at + long]
        lively = part.std(0).mean()
        if lively < LIVELY:
            continue
        # Where the first of these pictures was shown before, the others must follow.
        near = (
            power[: at - long + 1] - 2 * thumbs[: at - long + 1] @ part[0]
        )  # squared distances, less the same
        for start in np.argsort(near)[:4]:
            if np.abs(thumbs[start : start + long] - part).mean() < ALIKE * lively:
                found[at : at + long] = True
                break
    return found[_look_of(watched)]


def _look_of(watched: Watched) -> np.ndarray:
    """Number of the last look at or before each frame (N,)."""
    return np.searchsorted(watched.looks, np.arange(len(watched.cut)), "right") - 1
