"""The path of the largest box of a ratio: after faces, else after what moves, else in the middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finish.framing import whole
from finish.watching import Watched

SURE = 0.97  # that a face is one: what MTCNN says less surely is a lamp post too often
SMOOTH = 0.4  # seconds: the deviation of the weights that a path is averaged with
MET = 2  # looks that a face must be found in, unless its shot has fewer
LAPSE = 1.5  # seconds that the foremost face is away before the box turns to another one
FAR = 3.0  # seconds that a face is remembered before and after it is found
UPPER = 0.45  # of the box's height: where a face is best
WINDOW = 2.0  # seconds to each side that what moves is summed over
CLEARLY = 1.25  # times as much must be seen in the box as in the middle for it to leave the middle
REST = 0.02  # of the picture: a path that stays within so little does not move at all
HAIR = 0.15  # of a face's size that the box leaves around it, where there is room


@dataclass(frozen=True)
class Follow:
    """sure: of a face, at least; smooth: seconds of averaging; both with measured defaults."""

    sure: float = SURE
    smooth: float = SMOOTH


FOLLOW = Follow()


def follow(watched: Watched, ratio: tuple[float, float], plan: Follow = FOLLOW) -> np.ndarray:
    """Boxes x, y, w (N, 3) in whole pixels, one for each frame, all of the largest size there is."""
    width, height = watched.size
    wide = min(width, height * ratio[0] / ratio[1])
    across = wide < width - 1e-9
    length, side = (width, wide) if across else (height, wide * ratio[1] / ratio[0])
    share, middle = side / length, np.full(len(watched.cut), 0.5)
    if share < 1:
        for first, last in watched.shots:
            middle[first:last] = _shot(watched, (first, last), share, across, plan)
    start = np.clip(middle * length - side / 2, 0, length - side)
    boxes = [(at, 0, wide) if across else (0, at, wide) for at in start]
    return np.array([whole(np.array(box), ratio, watched.size) for box in boxes])


def tracks(faces: list[np.ndarray], sure: float) -> list[dict[int, np.ndarray]]:
    """Boxes (4,) of the same face by the number of the look, the most seen and largest face first."""
    found: list[dict[int, np.ndarray]] = []
    open_: list[dict[int, np.ndarray]] = []  # those that were seen a moment ago
    for look, boxes in enumerate(faces):
        open_ = [track for track in open_ if look - next(reversed(track)) <= MET + 1]
        taken = []
        for box in boxes[boxes[:, 4] >= sure, :4]:
            last = [track[next(reversed(track))] for track in open_]
            near = [n for n, each in enumerate(last) if n not in taken and _touching(each, box)]
            if near:
                taken.append(min(near, key=lambda n: float(np.abs(last[n] - box).sum())))
                open_[taken[-1]][look] = box
            else:
                found.append({look: box})
                taken.append(len(open_))
                open_.append(found[-1])
    return sorted(found, key=lambda track: -sum(float(np.prod(b[2:] - b[:2])) ** 0.5 for b in track.values()))


def _touching(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the middle of a face lies in the face that was found before."""
    apart = np.abs(a[:2] + a[2:] - b[:2] - b[2:]) / 2
    return bool((apart < 0.75 * np.maximum(a[2:] - a[:2], b[2:] - b[:2])).all())


def _shot(watched: Watched, shot: tuple[int, int], share: float, across: bool, plan: Follow) -> np.ndarray:
    """Middles of the box in the frames of a shot, in parts of the picture's length."""
    low, high = np.searchsorted(watched.looks, shot)
    begins = watched.begins[shot[0] : shot[1]]
    if low == high:
        return np.full(len(begins), 0.5)
    times = watched.begins[watched.looks[low:high]]
    where, spans = _held(watched.faces[low:high], times, share, across, plan.sure)
    seen = (watched.across if across else watched.down)[low:high]
    targets = _moving(seen.astype(float), times, share)
    if len(where):
        faces = np.interp(times, where, spans.mean(1) + (0 if across else (0.5 - UPPER) * share))
        targets = np.where(_apart(times, where) <= FAR, faces, targets)
    path = _smooth(targets, times, begins, plan.smooth)
    if np.ptp(path) < REST:
        path[:] = np.median(path)
    if len(where):  # smoothing may not cut a face off that the box has room for
        near = _apart(begins, where) <= FAR
        low, high = (np.interp(begins, where, edge) for edge in spans.T)
        least, most = high - share / 2, low + share / 2
        inside = np.where(least <= most, np.clip(path, np.minimum(least, most), most), (low + high) / 2)
        path = np.where(near, inside, path)
    return np.clip(path, share / 2, 1 - share / 2)


def _held(
    faces: list[np.ndarray], times: np.ndarray, share: float, across: bool, sure: float
) -> tuple[np.ndarray, np.ndarray]:
    """Times at which there is a face (K,), and the part of the picture's length to hold then (K, 2).

    That is the foremost face, others as far as the box has room, and another one while it is long away.
    """
    edges: dict[int, tuple[float, float]] = {}
    for track in tracks(faces, sure):
        if len(track) < min(MET, len(faces)):
            continue
        away = _apart(times, times[sorted(edges)]) > LAPSE
        for look, box in track.items():
            low, high = box[0 if across else 1], box[2 if across else 3]
            room = HAIR * (high - low)
            low, high = max(0.0, low - room), min(1.0, high + room)
            if look in edges:
                low, high = min(low, edges[look][0]), max(high, edges[look][1])
                if high - low <= share:
                    edges[look] = low, high
            elif away[look]:
                edges[look] = low, high
    where = sorted(edges)
    return times[where], np.array([edges[look] for look in where]).reshape(-1, 2)


def _apart(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each time (T,) from the nearest of other ascending ones; infinite without any."""
    if not len(others):
        return np.full(len(times), np.inf)
    at = np.searchsorted(others, times)
    before, after = others[np.maximum(at - 1, 0)], others[np.minimum(at, len(others) - 1)]
    return np.minimum(abs(times - before), abs(after - times))


def _moving(seen: np.ndarray, times: np.ndarray, share: float) -> np.ndarray:
    """Middles (T,) of the part `share` of columns (T, C) with most to be seen; near the middle if equal."""
    cells = seen.shape[1]
    wide = max(1, round(share * cells))
    places = np.arange(cells - wide + 1)
    usual = 0.5 * (cells - wide)
    total = np.concatenate([np.zeros((1, cells)), np.cumsum(seen, 0)])
    low, high = np.searchsorted(times, times - WINDOW), np.searchsorted(times, times + WINDOW, "right")
    found = np.full(len(times), 0.5)
    for look, (a, b) in enumerate(zip(low, high, strict=True)):
        mass = np.concatenate([[0], np.cumsum(total[b] - total[a])])
        inside = mass[places + wide] - mass[places]
        best = inside.argmax()
        if inside[best] > CLEARLY * max(inside[int(usual)], 1e-9):
            top = places[inside > 0.97 * inside[best]]
            best = top[np.abs(top - usual).argmin()]
            found[look] = (best + wide / 2) / cells
    return found


def _smooth(values: np.ndarray, times: np.ndarray, at: np.ndarray, seconds: float) -> np.ndarray:
    """Values (T,) at times, averaged by Gaussian weights at other times: both ways, so that nothing lags."""
    # On a grid, then read between its points: weights for each pair of times would not fit an hour's shot.
    step = max(min(seconds / 4, 0.1), 1e-3)
    grid = np.arange(times[0], max(at[-1], times[-1]) + step, step)
    reach = int(np.ceil(3 * seconds / step))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / seconds) ** 2)
    line = np.interp(grid, times, values)
    # Odd reflection keeps the slope at the ends, where a mean of one side would lag.
    padded = (
        np.pad(line, reach, mode="reflect", reflect_type="odd")
        if len(line) > reach
        else np.pad(line, reach, mode="edge")
    )
    return np.interp(at, grid, np.convolve(padded, kernel / kernel.sum(), "valid"))
