"""Whether structure and colour are the reference's in every place; a mean over the picture hides where not.

Structure is what lies between two Gaussian blurs, lines and folds a few pixels wide: every way to make the
same video keeps them in place, another sample does not. Its error is the contrast and structure term of Wang
et al. (2004): 0 for equal, 1 for unrelated, 2 for inverted. Frames are brought to a common size first, so
that limits hold at any; finer detail is for the check of sharpness.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SHORT_SIDE = 128  # pixels that a frame is brought near to, by a whole factor
BLOCK = 8  # pixels a side, in steps of half of that
FINE, COARSE = 0.8, 2.5  # sigmas of the blurs, in pixels
FLOOR = 64.0  # squared levels: structure weaker than 8 levels hardly counts
RUN = 3  # frames in a row that a short defect lasts
PER_FRAME = ("structure", "structure_block", "colour_block")


class Local:
    """Takes pairs of frames, and keeps a few numbers of each."""

    def __init__(self) -> None:
        self._frames: dict[str, list[float]] = {name: [] for name in PER_FRAME}
        self._areas: dict[str, list[float]] = {}

    def update(
        self, reference: np.ndarray, candidate: np.ndarray, areas: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Take the next pair, (H, W, 3) uint8 of one shape; areas: face and hands as pixels (H, W) bool."""
        import cv2

        wanted, found = (_small(frame) for frame in (reference, candidate))
        shape = wanted.shape[1::-1]
        colour = np.abs(_blocks(found - wanted)).max(2)
        bands = [_band(frame) for frame in (wanted, found)]
        powers = [cv2.blur(band * band, (BLOCK, BLOCK)) for band in bands]
        both, power = cv2.blur(bands[0] * bands[1], (BLOCK, BLOCK)), powers[0] + powers[1]
        error = _steps(1 - (2 * both + FLOOR) / (power + FLOOR))
        total = float(power.sum())
        self._frames["structure"].append(1 - 2 * float(both.sum()) / total if total > 1e-3 else 0.0)
        self._frames["structure_block"].append(float(error.max()))
        self._frames["colour_block"].append(float(colour.max()))
        for name, area in (areas or {}).items():
            inside = _steps(cv2.resize(area.astype(np.float32), shape, interpolation=cv2.INTER_AREA)) > 0.5
            if inside.any():
                self._areas.setdefault(name, []).append(float(error[inside].max()))

    def summary(self) -> dict[str, float | None]:
        """structure: error of all lines and folds, a median of frames; _block: of the worst place.

        _hands, _face: of the worst place there; None where there is no area. colour_block: levels that the
        worst place's worst channel is off by. _run: what the worst RUN frames in a row all exceed.
        """
        frames = self._frames
        found: dict[str, float | None] = {
            "structure": float(np.median(frames["structure"])),
            "structure_block": float(np.median(frames["structure_block"])),
            "structure_run": _worst_run(frames["structure_block"]),
            "colour_block": float(np.median(frames["colour_block"])),
            "colour_run": _worst_run(frames["colour_block"]),
        }
        for name in ("hands", "face"):
            values = self._areas.get(name)
            found[f"structure_{name}"] = float(np.median(values)) if values else None
        return found


def _small(frame: np.ndarray) -> np.ndarray:
    """float32, by a whole factor smaller."""
    import cv2

    height, width = frame.shape[:2]
    factor = max(1, min(height, width) // SHORT_SIDE)
    if factor > 1:
        frame = cv2.resize(frame, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return frame.astype(np.float32)


def _band(frame: np.ndarray) -> np.ndarray:
    import cv2

    grey = frame.mean(2)
    return cv2.GaussianBlur(grey, (0, 0), FINE) - cv2.GaussianBlur(grey, (0, 0), COARSE)


def _blocks(values: np.ndarray) -> np.ndarray:
    """Means of blocks that overlap by half."""
    import cv2

    return _steps(cv2.blur(values, (BLOCK, BLOCK)))


def _steps(values: np.ndarray) -> np.ndarray:
    first = [min(BLOCK // 2, size - 1) for size in values.shape[:2]]
    return values[first[0] :: BLOCK // 2, first[1] :: BLOCK // 2]


def _worst_run(values: list[float]) -> float:
    length = min(RUN, len(values))
    return max(min(values[i : i + length]) for i in range(len(values) - length + 1))
