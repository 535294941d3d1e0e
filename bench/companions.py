"""What a cosine of pooled features cannot see: distances frame by frame, flicker, order, sharpness."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.boxes import Boxes
from bench.local import Local
from generators.distance import ssim

GRID = 8  # blocks a side
MOVING, FROZEN = 0.2, 0.1  # a frame moves above this many levels; it stands still below that part of it
BLACK = 16  # no channel of a black frame passes this level, TV range's own black
LAGS = range(-3, 4)


@dataclass
class _Sums:
    """What is added up over frames, or kept of each."""

    squared: list[float] = field(default_factory=list)
    similar: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)  # of the error, from frame to frame
    blocks: list[np.ndarray] = field(default_factory=list)
    motion: list[tuple[float, float]] = field(default_factory=list)  # of the reference and the candidate
    edges: list[tuple[float, float]] = field(default_factory=list)
    shifts: list[tuple[float, float]] = field(default_factory=list)
    black: list[bool] = field(default_factory=list)


def companions(
    reference: np.ndarray, candidate: np.ndarray, boxes: Boxes | None = None
) -> tuple[dict[str, float | int | None], dict[str, list[float]]]:
    """Metrics of a candidate (F, H, W, 3) uint8 beside its reference of the same shape, and those per frame.

    Errors are in 8-bit levels, PSNR in dB; None where nothing differs, as in a lossless copy, or nothing is
    there to measure. temporal_error: mean change of the error from frame to frame; _block: of the worst of
    8x8 blocks. motion_correlation: of how much both move from frame to frame. lag: frames that the candidate
    is late. frozen: frames that stand still where the reference moves; black: where it is not. sharpness:
    edges, as a ratio. shift: pixels. colour_shift: mean error of the worst channel. _hands, _face: over the
    boxes' pixels. structure, colour_block: see bench/local.py.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"frames of {reference.shape} and {candidate.shape} cannot be compared")
    sums, before, colours, local = _Sums(), None, np.zeros(3), Local()
    areas = {"hands": boxes.hands, "face": boxes.face} if boxes else {}
    inside: dict[str, list[np.ndarray]] = {name: [np.zeros(3)] for name in areas}
    for i, (wanted, found) in enumerate(zip(reference, candidate, strict=True)):
        now = _Frame(wanted, found)
        _measure(sums, now, before)
        local.update(wanted, found, {name: area[i] for name, area in areas.items()})
        colours += now.error.mean((0, 1))
        for name, area in areas.items():
            inside[name].append(_over(area[i], now, before))
        before = now
    metrics = _summary(sums, len(reference), colours)
    metrics |= {"lag": _lag(reference, candidate), **local.summary()}
    for name, parts in inside.items():
        squared, change, pixels = np.sum(parts, 0)
        metrics[f"psnr_{name}"] = _psnr(squared / pixels) if pixels else None
        metrics[f"temporal_error_{name}"] = float(change / pixels) if pixels else None
    per_frame = {"psnr": [_psnr(mean) for mean in sums.squared], "temporal_error": sums.change}
    return metrics, {**per_frame, "ssim": sums.similar}


class _Frame:
    """A frame of both videos, and their difference."""

    def __init__(self, wanted: np.ndarray, found: np.ndarray) -> None:
        self.wanted, self.found = wanted.astype(np.float32), found.astype(np.float32)
        self.error = self.found - self.wanted


def _measure(sums: _Sums, now: _Frame, before: _Frame | None) -> None:
    import cv2

    sums.squared.append(float(np.square(now.error, dtype=np.float64).mean()))
    sums.similar.append(ssim(now.found, now.wanted))
    sums.black.append(now.found.max() <= BLACK < now.wanted.max())
    grey = [frame.mean(2) for frame in (now.wanted, now.found)]
    sums.edges.append(tuple(sum(float(np.abs(np.diff(g, axis=k)).mean()) for k in (0, 1)) for g in grey))
    window = cv2.createHanningWindow(grey[0].shape[::-1], cv2.CV_32F) if min(grey[0].shape) > 1 else None
    sums.shifts.append(cv2.phaseCorrelate(*grey, window)[0] if window is not None else (0.0, 0.0))
    if before is None:
        sums.change.append(0.0)
        return
    change = np.abs(now.error - before.error).mean(2)
    sums.change.append(float(change.mean()))
    sums.blocks.append(cv2.resize(change, (GRID, GRID), interpolation=cv2.INTER_AREA))
    sums.motion.append(tuple(
        float(np.abs(a - b).mean()) for a, b in ((now.wanted, before.wanted), (now.found, before.found))
    ))  # fmt: skip


def _summary(sums: _Sums, frames: int, colours: np.ndarray) -> dict[str, float | int | None]:
    motion = np.array(sums.motion).reshape(-1, 2)
    wanted, found = np.array(sums.edges).sum(0)
    return {
        "psnr": _psnr(float(np.mean(sums.squared))),
        "psnr_min": _psnr(max(sums.squared)),
        "ssim": float(np.mean(sums.similar)),
        "ssim_min": min(sums.similar),
        "temporal_error": float(np.mean(sums.change[1:])) if frames > 1 else 0.0,
        "temporal_error_block": float(np.mean(sums.blocks, 0).max()) if sums.blocks else 0.0,
        "motion_correlation": _correlation(*motion.T),
        "frozen": int(((motion[:, 0] > MOVING) & (motion[:, 1] < FROZEN * motion[:, 0])).sum()),
        "black": int(sum(sums.black)),
        "sharpness": float(found / wanted) if wanted else None,
        "shift": float(np.abs(np.median(sums.shifts, 0)).max()),
        "colour_shift": float(np.abs(colours / frames).max()),
    }


def _over(area: np.ndarray, now: _Frame, before: _Frame | None) -> np.ndarray:
    """Sums over the pixels of an area: squared error, change of the error, pixels."""
    if not area.any():
        return np.zeros(3)
    error = now.error[area]
    change = np.abs(error - before.error[area]).mean(1).sum() if before else 0.0
    return np.array([np.square(error).mean(1).sum(), change, area.sum()], np.float64)


def _lag(reference: np.ndarray, candidate: np.ndarray) -> int:
    """By how many frames the candidate is late, as its pictures fit best; 0 if it is not better elsewhere."""
    small = [frames[:, ::4, ::4].astype(np.float32) for frames in (reference, candidate)]
    count = len(reference)

    def distance(lag: int) -> float:
        first, last = max(0, lag), min(count, count + lag)
        return float(np.abs(small[1][first:last] - small[0][first - lag : last - lag]).mean())

    distances = {lag: distance(lag) for lag in LAGS if count - abs(lag) >= 2}
    best = min(distances, key=distances.get, default=0)
    return best if distances and distances[best] < 0.9 * distances[0] else 0


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's; None where one of them does not vary."""
    if len(a) < 3 or a.std() < 1e-6 or b.std() < 1e-6:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _psnr(mean: float) -> float | None:
    return float(10 * np.log10(255**2 / mean)) if mean else None
