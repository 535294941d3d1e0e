"""Where there is something to see: what moves, skin, writing, and what a network of the user's finds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from finish.fit import fitted
from finish.plugged import plugged

WIDTH = 160  # pixels that motion is measured at
CELLS = 48  # columns of the map that is kept
STILL = 6.0  # levels: noise and encoding change a pixel by less
CUT = 0.5  # correlation of neighbouring pictures below which a cut lies between them
SKIN, WRITING, FOUND = 1.0, 0.3, 4.0  # how much more these count than other things that move


class Motion:
    """How much each place moves from picture to picture, beside what the camera does."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, bool]:
        """Levels of change (h, w) since the last picture, and whether a cut lies between; grey: (h, w) uint8.

        Zero for the first picture and after a cut.
        """
        before, now = self._before, grey.astype(np.float32)
        self._before = now
        if before is None:
            return np.zeros_like(now), False
        window = cv2.createHanningWindow(now.shape[::-1], cv2.CV_32F)
        # Copies: OpenCV 5 writes the windowed pictures into its arguments.
        shift, _ = cv2.phaseCorrelate(before.copy(), now.copy(), window)
        moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        aligned = cv2.warpAffine(before, moved, now.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        straight, followed = np.abs(now - before), np.abs(now - aligned)
        change = followed if followed.mean() < straight.mean() else straight
        if _correlation(now, aligned) < CUT and _correlation(now, before) < CUT:
            return np.zeros_like(now), True
        # An edge moves a little in any picture: what its surroundings do counts.
        return np.maximum(cv2.GaussianBlur(change, (0, 0), 1.5) - STILL, 0), False


class Detector:
    """A network of the user's own that finds what is to be seen.

    pixels (n, H, W, 3) uint8 to "boxes" (m, 5) float32: left, top, right, bottom from 0 to 1, how sure; or to
    "saliency" (n, h, w) float32, from 0 to 1. EngineError for another file.
    """

    def __init__(self, path: Path) -> None:
        self._engine, self._size = plugged(path, [{"boxes": ("m", 5)}, {"saliency": ("n", "h", "w")}], 1)

    @property
    def gives_boxes(self) -> bool:
        """Whether it finds things, rather than how much is to be seen where."""
        return self._engine.spec.outputs[0].name == "boxes"

    def boxes(self, picture: np.ndarray) -> np.ndarray:
        """Left, top, right, bottom from 0 to 1 and how sure (m, 5)."""
        found = np.nan_to_num(self._engine(pixels=fitted(picture, self._size)[None])["boxes"])
        return np.concatenate([np.clip(found[:, :4], 0, 1), found[:, 4:]], 1)

    def __call__(self, picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """How much is to be seen in each cell of a map of that shape, 0 to 1."""
        if not self.gives_boxes:
            found = self._engine(pixels=fitted(picture, self._size)[None])
            return cv2.resize(found["saliency"][0], shape[::-1], interpolation=cv2.INTER_AREA)
        map_ = np.zeros(shape, np.float32)
        for *box, sure in self.boxes(picture):
            left, top, right, bottom = np.array(box) * np.tile(shape[::-1], 2)
            part = map_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
            np.maximum(part, sure, out=part)
        return map_


def weigh(picture: np.ndarray, motion: np.ndarray, detector: Detector | None) -> np.ndarray:
    """The map of what is to be seen, (rows, CELLS) float32, from a small picture (h, w, 3) and its motion."""
    rows = max(2, round(CELLS * picture.shape[0] / picture.shape[1]))

    def cells(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values.astype(np.float32), (CELLS, rows), interpolation=cv2.INTER_AREA)

    weight = 1 + SKIN * cells(skin(picture)) + WRITING * cells(writing(picture))
    if detector:
        weight = weight + FOUND * detector(picture, (rows, CELLS))
    return cells(motion) * weight


def skin(picture: np.ndarray) -> np.ndarray:
    """Pixels (h, w) bool of the colours of skin, light and dark: faces, arms, hands, and some wood."""
    _, red, blue = np.moveaxis(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb), -1, 0)
    return (red > 134) & (red < 178) & (blue > 80) & (blue < 128)


def writing(picture: np.ndarray) -> np.ndarray:
    """Pixels (h, w) bool where many upright edges lie side by side, as letters do."""
    edges = np.abs(cv2.Sobel(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F, 1, 0)) > 120
    return cv2.blur(edges.astype(np.float32), (13, 5)) > 0.4


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    lengths = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / lengths if lengths else 1.0
