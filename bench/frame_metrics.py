"""Measure what a cosine of pooled features cannot see: errors of frames, flicker, order, sharpness."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from bench.boxes import Boxes
from bench.local import Local

GRID = 8  # blocks a side
MOVING, FROZEN = 0.2, 0.1  # a frame moves above this many levels; it stands still below that part of it
# Levels by which the motion of a reference must vary for its correlation to say something. Where it varied by
# 0.07, crf 28 alone brought it down to 0.69, by 0.19 to 0.85, by more to 0.9 and up (20 clips).
VARYING = 0.15
BLACK = 16  # no channel of a black frame passes this level, TV range's own black
LAGS = range(-3, 4)


def psnr(error: np.ndarray, where: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB of an 8-bit error (F, H, W, 3).

    where: (F, H, W), true for pixels that count; without it all do. inf where the error is zero, nan where
    there are no pixels.
    """
    squared = np.square(error if where is None else error[where], dtype=np.float64)
    if squared.size == 0:
        return float("nan")
    found = psnr_of(squared.mean())
    return float("inf") if found is None else found


def psnr_of(mean: float) -> float | None:
    """Return the PSNR in dB of a mean squared error in 8-bit levels; None where there is none."""
    return float(10 * np.log10(255**2 / mean)) if mean else None


def temporal_error(error: np.ndarray) -> float:
    """Return flicker: the mean change of an error (F, H, W, 3) from frame to frame, in 8-bit levels."""
    return float(np.abs(np.diff(error, axis=0)).mean()) if len(error) > 1 else 0.0


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Return the structural similarity of frames (H, W, 3) uint8: Wang et al. (2004), Gaussian, sigma 1.5."""
    import cv2

    a, b = a.astype(np.float32), b.astype(np.float32)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    c1, c2, mean_a, mean_b = (0.01 * 255) ** 2, (0.03 * 255) ** 2, blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    return float(
        (
            ((2 * mean_a * mean_b + c1) * (2 * both + c2))
            / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        ).mean()
    )


class FrameMetrics:
    """An accumulator of what differs between a candidate and its reference, fed with pairs of frames.

    Memory is a few frames, and a few numbers for each pair.
    """

    def __init__(self) -> None:
        self._sums, self._lag, self._local, self._before = _Sums(), _Lag(), Local(), None
        self._areas: dict[str, np.ndarray] = {"hands": np.zeros(3), "face": np.zeros(3)}

    def update(self, reference: np.ndarray, candidate: np.ndarray, boxes: Boxes | None = None) -> None:
        """Add the next pair, (H, W, 3) uint8 of one shape, else ValueError.

        boxes: of hands and face in this pair; without them these areas get no figures.
        """
        if reference.shape != candidate.shape:
            raise ValueError(f"frames of {reference.shape} and {candidate.shape} cannot be compared")
        now = _Frame(reference, candidate)
        _measure(self._sums, now, self._before)
        self._lag.update(reference, candidate)
        areas = {} if boxes is None else {"hands": boxes.hands, "face": boxes.face}
        self._local.update(reference, candidate, areas)
        self._areas = {
            name: self._areas[name] + _over(area, now, self._before)
            for name, area in areas.items()
            if name in self._areas
        }
        self._before = now

    def summary(self) -> tuple[dict[str, float | int | None], dict[str, list[float]]]:
        """Return metrics of the candidate, and those of every frame.

        Errors are in 8-bit levels, PSNR in dB; None where nothing differs, as in a lossless copy, or where
        there is nothing to measure. temporal_error: mean change of the error from frame to frame; _block: of
        the worst of 8x8 blocks. motion_correlation: of how much both move from frame to frame. lag: frames
        that the candidate is late. frozen: frames that stand still where the reference moves; black: where it
        is not. sharpness: edges, as a ratio. shift: pixels. colour_shift: mean error of the worst channel.
        _hands, _face: over the boxes' pixels. structure, colour_block: see bench/local.py.
        """
        metrics = _summary(self._sums)
        metrics |= {"lag": self._lag.summary(), **self._local.summary()}
        for name, (squared, change, pixels) in self._areas.items():
            metrics[f"psnr_{name}"] = psnr_of(squared / pixels) if pixels else None
            metrics[f"temporal_error_{name}"] = float(change / pixels) if pixels else None
        sums = self._sums
        distances = [psnr_of(mean) for mean in sums.squared]
        return metrics, {"psnr": distances, "temporal_error": sums.change, "ssim": sums.similar}


@dataclass
class _Sums:
    """Figures of each pair of frames, or their sums over all."""

    squared: list[float] = field(default_factory=list)
    similar: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)  # of the error, from frame to frame
    motion: list[tuple[float, float]] = field(default_factory=list)  # of the reference and the candidate
    edges: list[tuple[float, float]] = field(default_factory=list)
    shifts: list[tuple[float, float]] = field(default_factory=list)
    black: list[bool] = field(default_factory=list)
    blocks: np.ndarray = field(default_factory=lambda: np.zeros((GRID, GRID)))  # of the change
    colours: np.ndarray = field(default_factory=lambda: np.zeros(3))


class _Frame:
    """A pair of frames as float32, and the error of the candidate's."""

    def __init__(self, wanted: np.ndarray, found: np.ndarray) -> None:
        self.wanted, self.found = wanted.astype(np.float32), found.astype(np.float32)
        self.error = self.found - self.wanted


def _measure(sums: _Sums, now: _Frame, before: _Frame | None) -> None:
    import cv2

    sums.colours += now.error.mean((0, 1))
    sums.squared.append(float(np.square(now.error, dtype=np.float64).mean()))
    sums.similar.append(ssim(now.found, now.wanted))
    sums.black.append(now.found.max() <= BLACK < now.wanted.max())
    grey = [frame.mean(2) for frame in (now.wanted, now.found)]
    sums.edges.append(tuple(sum(float(np.abs(np.diff(g, axis=k)).mean()) for k in (0, 1)) for g in grey))
    sums.shifts.append(_shift(*grey))
    if before is None:
        sums.change.append(0.0)
        return
    change = np.abs(now.error - before.error).mean(2)
    sums.change.append(float(change.mean()))
    sums.blocks += cv2.resize(change, (GRID, GRID), interpolation=cv2.INTER_AREA)
    sums.motion.append(tuple(
        float(np.abs(a - b).mean()) for a, b in ((now.wanted, before.wanted), (now.found, before.found))
    ))  # fmt: skip


def _shift(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Return by how many pixels (x, y) a frame has moved; 0 where moving it back brings it no nearer.

    Phase correlation alone finds a shift in any soft picture that was encoded anew.
    """
    import cv2

    if min(wanted.shape) < 2:
        return 0.0, 0.0
    window = cv2.createHanningWindow(wanted.shape[::-1], cv2.CV_32F)
    x, y = cv2.phaseCorrelate(wanted, found, window)[0]
    size, back = wanted.shape[::-1], np.array([[1, 0, x], [0, 1, y]])
    moved = cv2.warpAffine(
        found, back, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    before, after = (float((np.abs(f - wanted) * window).sum()) for f in (found, moved))
    return (x, y) if after < 0.9 * before else (0.0, 0.0)


def _summary(sums: _Sums) -> dict[str, float | int | None]:
    frames = len(sums.squared)
    motion = np.array(sums.motion).reshape(-1, 2)
    wanted, found = np.array(sums.edges).sum(0)
    return {
        "psnr": psnr_of(float(np.mean(sums.squared))),
        "psnr_min": psnr_of(max(sums.squared)),
        "ssim": float(np.mean(sums.similar)),
        "ssim_min": min(sums.similar),
        "temporal_error": float(np.mean(sums.change[1:])) if frames > 1 else 0.0,
        "temporal_error_block": float(sums.blocks.max() / max(1, frames - 1)),
        "motion_correlation": _correlation(*motion.T),
        "frozen": int(((motion[:, 0] > MOVING) & (motion[:, 1] < FROZEN * motion[:, 0])).sum()),
        "black": int(sum(sums.black)),
        "sharpness": float(found / wanted) if wanted else None,
        "shift": float(np.abs(np.median(sums.shifts, 0)).max()),
        "colour_shift": float(np.abs(sums.colours / frames).max()),
    }


def _over(area: np.ndarray, now: _Frame, before: _Frame | None) -> np.ndarray:
    """Return sums over the pixels of an area: squared error, change of the error, pixels."""
    if not area.any():
        return np.zeros(3)
    error = now.error[area]
    change = np.abs(error - before.error[area]).mean(1).sum() if before else 0.0
    return np.array([np.square(error).mean(1).sum(), change, area.sum()], np.float64)


class _Lag:
    """Finds by how many frames the candidate is late: where it fits best, if clearly better than unmoved."""

    def __init__(self) -> None:
        self._recent: deque[tuple[np.ndarray, ...]] = deque(maxlen=LAGS[-1] + 1)  # small, the newest first
        self._sums = dict.fromkeys(LAGS, 0.0)
        self._count = 0

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        self._recent.appendleft(tuple(frame[::4, ::4].astype(np.float32) for frame in (reference, candidate)))
        self._count += 1
        for lag in LAGS:
            if abs(lag) < len(self._recent):
                wanted, found = self._recent[max(0, lag)][0], self._recent[max(0, -lag)][1]
                self._sums[lag] += float(np.abs(found - wanted).mean())

    def summary(self) -> int:
        counts = {lag: self._count - abs(lag) for lag in LAGS}
        distances = {lag: self._sums[lag] / count for lag, count in counts.items() if count >= 2}
        best = min(distances, key=distances.get, default=0)
        return best if distances and distances[best] < 0.9 * distances[0] else 0


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Pearson's correlation of motions; None where one of them hardly varies."""
    if len(a) < 3 or a.std() < VARYING or b.std() < 1e-6:
        return None
    return float(np.corrcoef(a, b)[0, 1])
