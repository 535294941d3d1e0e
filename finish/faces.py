"""Where faces are in a picture, by MTCNN's cascade: many windows at first, of which few are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from engines.artifact import built_folder
from engines.errors import EngineError
from engines.load import Choice, start_engines
from engines.spec import Engine
from finish.mtcnn import MOST, Mtcnn

LONG = 400  # pixels of a picture's longer side that faces are looked for in
# Pixels of the smallest face there; and from one size of the pyramid to the next.
SMALLEST, FACTOR = 20, 0.709
CELL = 12  # pixels that the first network sees
# How sure each network must be, and how much of windows may overlap; as the cascade's authors have them.
PROPOSED, REFINED, SETTLED = 0.6, 0.7, 0.7


class Faces:
    """The cascade on engines; files are those that its weights are in."""

    def __init__(self, engines: Mapping[str, Engine], weights: Sequence[Path] = ()) -> None:
        self._engines = engines
        self.files = [engine.path for engine in engines.values() if engine.path] or list(weights)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Left, top, right, bottom from 0 to 1 and how sure (m, 5), for a picture (H, W, 3) uint8."""
        scale = LONG / max(picture.shape[:2])
        sides = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
        small = cv2.resize(picture, sides, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        found = self._propose(small)
        for name, side, least in (("refine", 24, REFINED), ("settle", 48, SETTLED)):
            found = self._again(small, _square(found), name, side, least)
        return np.clip(found / (*sides, *sides, 1), 0, 1)

    def _propose(self, picture: np.ndarray) -> np.ndarray:
        """Windows of all sizes that may be faces (m, 5), in pixels."""
        scale, found = CELL / SMALLEST, [np.zeros((0, 5))]
        while min(picture.shape[:2]) * scale >= CELL:
            sides = [int(side * scale + 1) for side in picture.shape[1::-1]]
            seen = cv2.resize(picture, sides, interpolation=cv2.INTER_AREA)
            answer = self._engines["propose"](pixels=seen[None])
            rows, columns = np.nonzero(answer["sure"][0] >= PROPOSED)
            corner = 2 * np.stack([columns, rows], 1) + 1
            boxes = np.concatenate([corner, corner + CELL - 1], 1) / scale
            sure = answer["sure"][0][rows, columns]
            kept = _distinct(boxes, sure, 0.5)
            moved = _moved(boxes[kept], answer["moves"][0][:, rows[kept], columns[kept]].T)
            found.append(np.concatenate([moved, sure[kept, None]], 1))
            scale *= FACTOR
        every = np.concatenate(found)
        return every[_distinct(every[:, :4], every[:, 4], 0.7)[:MOST]]  # the surest: grass looks like faces

    def _again(
        self, picture: np.ndarray, boxes: np.ndarray, name: str, side: int, least: float
    ) -> np.ndarray:
        """What a network says of windows (m, 5), more closely looked at."""
        height, width = picture.shape[:2]
        edges = np.stack([np.clip(boxes[:, n], 0, (width, height)[n % 2]) for n in range(4)], 1).astype(int)
        boxes, edges = (each[(edges[:, 2:] > edges[:, :2]).all(1)] for each in (boxes, edges))
        if not len(boxes):
            return np.zeros((0, 5))
        cut = [
            cv2.resize(picture[top:bottom, left:right], (side, side), interpolation=cv2.INTER_AREA)
            for left, top, right, bottom in edges
        ]
        answer = self._engines[name](pixels=np.stack(cut))
        right = answer["sure"] > least
        moved = _moved(boxes[right], answer["moves"][right])
        sure = answer["sure"][right]
        kept = _distinct(moved, sure, 0.7, least=name == "settle")
        return np.concatenate([moved, sure[:, None]], 1)[kept]


def find_faces(folder: Path | None, say: Callable[[str], None]) -> Faces | None:
    """The detector: built graphs, or the package's weights in torch; None, which is said, without both."""
    model, refusals = Mtcnn(), []
    for backend in ("onnxruntime", "torch"):
        precisions = dict.fromkeys(model.components, "fp32")
        choice = Choice(backend, precisions, "cpu", folder or built_folder(model.name))
        try:
            return Faces(start_engines(model, choice, say)[1], model.weights)
        except EngineError as error:
            refusals.append(str(error).splitlines()[0])
    say("\n".join([*refusals, "no detector of faces, so what moves is followed instead"]))
    return None


def _square(boxes: np.ndarray) -> np.ndarray:
    """The same windows as squares around their middles."""
    half = (boxes[:, 2:4] - boxes[:, :2]).max(1, keepdims=True) / 2
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    return np.concatenate([middle - half, middle + half, boxes[:, 4:]], 1)


def _moved(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    sides = boxes[:, 2:4] - boxes[:, :2]
    return boxes[:, :4] + moves * np.concatenate([sides, sides], 1)


def _distinct(boxes: np.ndarray, sure: np.ndarray, most: float, least: bool = False) -> np.ndarray:
    """Numbers of the surest boxes that share no more than `most` of both, or with `least` of the smaller."""
    left, top, right, bottom = boxes[:, :4].T
    areas, order, kept = (right - left) * (bottom - top), np.argsort(-sure), []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        wide = np.minimum(right[first], right[order]) - np.maximum(left[first], left[order])
        high = np.minimum(bottom[first], bottom[order]) - np.maximum(top[first], top[order])
        common = np.maximum(0, wide) * np.maximum(0, high)
        both = np.minimum(areas[first], areas[order]) if least else areas[first] + areas[order] - common
        order = order[common <= most * both]
    return np.array(kept, int)
