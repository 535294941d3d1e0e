"""Feed a clip to a feature extractor frame by frame, in memory that does not grow with the clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

BATCH = 16  # frames that a graph takes at once
Features = tuple[np.ndarray | None, np.ndarray]  # of a clip, if there is one; of its frames


class Spec(Protocol):
    """The part of bench.similarity's Spec that this file uses."""

    kind: str
    size: tuple[int, int]
    fit: str
    resize: str
    pool: str | None

    @property
    def outputs(self) -> list[str]:
        """Return names of the features: of a clip and of its frames, or of frames."""
        ...


class Extractor(Protocol):
    """The part of bench.similarity's Extractor that this file uses."""

    spec: Spec

    def run(self, frames: Sequence[np.ndarray], outputs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return the graph's outputs for fitted frames."""
        ...

    def pool(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the features of a clip from the rows of its frames."""
        ...


class Watch:
    """An accumulator that takes a clip frame by frame for its features, and holds no more than BATCH frames.

    A graph for clips without a second one to pool needs all frames at once; they are held until then.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor, self._spec = extractor, extractor.spec
        self._in_parts = self._spec.kind == "frames" or self._spec.pool
        self._before: list[np.ndarray] = []  # the last one of those that were taken, where the next needs it
        self._waiting: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def update(self, frame: np.ndarray) -> None:
        """Add the next frame (H, W, 3) uint8."""
        self._waiting.append(fitted(frame, self._spec))
        if self._in_parts and len(self._waiting) == BATCH:
            self._take()

    def summary(self) -> Features:
        """Return the features of all frames, one at least."""
        if self._in_parts:
            if self._waiting:
                self._take()
            rows = np.concatenate(self._rows)
            if self._spec.kind == "frames":
                return None, rows
            clip, *each = self._extractor.pool(rows)
        else:
            clip, *each = self._extractor.run(_two(self._waiting), self._spec.outputs)
        return clip[0], each[0] if each else np.zeros((0, 1))

    def _take(self) -> None:
        if self._spec.kind == "frames":
            self._rows += self._extractor.run(self._waiting, self._spec.outputs)
        else:
            rows = self._extractor.run(_two([*self._before, *self._waiting]))[0]
            self._rows.append(rows[len(self._before) :])
            self._before = self._waiting[-1:]
        self._waiting = []


def fitted(frame: np.ndarray, spec: Spec) -> np.ndarray:
    """Return the frame (H, W, 3) at the extractor's size: stretched, or whole with black around it."""
    from PIL import Image

    width, height = spec.size
    method = Image.Resampling[spec.resize.upper()]
    picture = Image.fromarray(frame)
    if spec.fit == "stretch":
        return np.asarray(picture.resize((width, height), method))
    scale = min(width / picture.width, height / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture.resize(inner, method), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return np.asarray(canvas)


def _two(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Return at least two frames, as graphs of clips need: a single one twice."""
    return pictures if len(pictures) > 1 else pictures * 2
