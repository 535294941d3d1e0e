"""Measure whether structure and colour are right in every place: a mean over the picture hides where not.

Structure is what lies between two Gaussian blurs, lines and folds a few pixels wide: every way to make the
same video keeps them in place, another sample does not. Its error is the contrast and structure term of Wang
et al. (2004): 0 for equal, 1 for unrelated, 2 for inverted. Frames are brought to a common size first, so
that limits hold at any. Detail is what is finer than that, at full size and where the reference has most of
it: encoders keep it there, a video made smaller and enlarged has lost it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SHORT_SIDE = 128  # pixels that a frame is brought near to, by a whole factor
BLOCK = 8  # pixels a side, in steps of half of that
FINE, COARSE = 0.8, 2.5  # sigmas of the blurs, in pixels
FLOOR = 64.0  # squared levels: structure weaker than 8 levels hardly counts
RUN = 3  # frames in a row that a short defect lasts
PER_FRAME = ("structure", "structure_block", "colour_block", "detail")
MOST_DETAILED = 0.05  # of the picture
AREAS = ("hands", "face")


class Local:
    """An accumulator of local measures, fed with pairs of frames; it keeps a few numbers of each."""

    def __init__(self) -> None:
        self._frames: dict[str, list[float]] = {name: [] for name in PER_FRAME}
        self._areas: dict[str, list[tuple[float, float]]] = {}

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
        self._frames["detail"].append(_detail(reference, candidate))
        for name, area in (areas or {}).items():
            inside = _steps(cv2.resize(area.astype(np.float32), shape, interpolation=cv2.INTER_AREA)) > 0.5
            if inside.any():
                worst = float(error[inside].max()), float(colour[inside].max())
                self._areas.setdefault(name, []).append(worst)

    def summary(self) -> dict[str, float | None]:
        """Return structure: error of all lines and folds, a median of frames; _block: of the worst place.

        colour_block: levels that the worst place's worst channel is off by. _hands, _face: of the worst place
        there; None where there is no area. _run: what the worst RUN frames in a row all exceed. detail: the
        candidate's as a part of the reference's; None where that has none.
        """
        frames = {name: np.array(values) for name, values in self._frames.items()}
        detail = frames.pop("detail")
        detail = detail[np.isfinite(detail)]
        found = {name: float(np.median(values)) for name, values in frames.items()}
        for name in ("structure", "colour"):
            found[f"{name}_run"] = _worst_run(self._frames[f"{name}_block"])
        found["detail"] = float(np.median(detail)) if len(detail) else None
        for name in AREAS:
            values = np.median(self._areas[name], 0).tolist() if name in self._areas else (None, None)
            found |= {f"structure_{name}": values[0], f"colour_{name}": values[1]}
        return found


def _small(frame: np.ndarray) -> np.ndarray:
    """Shrink by a whole factor, to float32."""
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


def _detail(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return how much of the finest lines is left where the reference has most of them; nan if none."""
    import cv2

    powers = []
    for frame in (reference, candidate):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        finest = grey - cv2.GaussianBlur(grey, (3, 3), 0)
        size = [max(1, length // 4) for length in grey.shape[::-1]]
        powers.append(cv2.resize(finest * finest, size, interpolation=cv2.INTER_AREA))
    most = powers[0] >= np.quantile(powers[0], 1 - MOST_DETAILED)
    wanted, found = (float(power[most].sum()) for power in powers)
    return (found / wanted) ** 0.5 if wanted > 0 else float("nan")


def _blocks(values: np.ndarray) -> np.ndarray:
    """Return means of blocks that overlap by half."""
    import cv2

    return _steps(cv2.blur(values, (BLOCK, BLOCK)))


def _steps(values: np.ndarray) -> np.ndarray:
    first = [min(BLOCK // 2, size - 1) for size in values.shape[:2]]
    return values[first[0] :: BLOCK // 2, first[1] :: BLOCK // 2]


def _worst_run(values: list[float]) -> float:
    length = min(RUN, len(values))
    return max(min(values[i : i + length]) for i in range(len(values) - length + 1))
