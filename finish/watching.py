"""A video looked through once, for what to leave out and where to look: each frame briefly, some closely."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from finish.cover import ahead
from finish.fit import fitted
from finish.saliency import WIDTH, Detector, Motion, weigh
from finish.scorer import BATCH, Scorer
from pipeline.video.reader import VideoReader

LOOKS = 5  # a second that pictures are looked at closely
GRADED = 3  # looks between pictures that are scored
BRIEF = (96, 54)  # width and height that each frame is compared with the one before at
THUMB = (16, 9)  # of the pictures that repeated stretches are found by
JUMP = 8.0  # levels between neighbouring frames; less is no cut
UNLIKE = 0.75  # correlation of neighbouring frames; more is no cut
Finder = Callable[[np.ndarray], np.ndarray]  # a picture to boxes (m, 5) from 0 to 1, the last: how sure


@dataclass(frozen=True)
class Gaze:
    """What looks: the scorer of pictures, what finds faces or bodies, perhaps a map of what is to be seen."""

    scorer: Scorer
    finder: Finder | None = None
    saliency: Detector | None = None


@dataclass(frozen=True)
class Watched:
    """A video of N frames, T of which were looked at closely; size is (width, height) in the file's pixels.

    begins: when frames begin and the last one ends, in seconds (N + 1,). cut: a shot begins here (N,). light,
    contrast: mean level and deviation (N,); change: mean difference from the frame before, in levels (N,);
    shift: how far the picture moved since then, in parts of its width (N, 2). looks: numbers of the frames
    looked at (T,); faces: boxes in each (m, 5), from 0 to 1; across, down: what is to be seen in each column
    (T, CELLS) and row (T, rows); thumbs (T, 16 * 9); quality: of the cover network (T,).
    """

    size: tuple[int, int]
    begins: np.ndarray
    cut: np.ndarray
    light: np.ndarray
    contrast: np.ndarray
    change: np.ndarray
    shift: np.ndarray
    looks: np.ndarray
    faces: list[np.ndarray]
    across: np.ndarray
    down: np.ndarray
    thumbs: np.ndarray
    quality: np.ndarray

    @property
    def shots(self) -> list[tuple[int, int]]:
        """First and last frame (not included) of each shot."""
        edges = [0, *(np.flatnonzero(self.cut[1:]) + 1), len(self.cut)]
        return [(int(a), int(b)) for a, b in zip(edges, edges[1:], strict=False)]


def watch(path: Path, gaze: Gaze) -> Watched:
    """Look through a whole video in bounded memory. InputError: it is damaged."""
    eye = _Eye(gaze)
    with VideoReader(path) as reader:
        begins, square = reader.info.begins, reader.info.square
        for number, frame in enumerate(ahead(reader)):
            eye.see(number, frame, begins[number], square)
        begins = begins[: number + 1].tolist() + [begins[number + 1]]  # as decoding told
    return eye.summary((reader.width, reader.height), np.array(begins))


class _Eye:
    """Takes frames one by one, and keeps what Watched holds of them."""

    def __init__(self, gaze: Gaze) -> None:
        self._gaze, self._move = gaze, Motion()
        self._before: np.ndarray | None = None
        self._window = cv2.createHanningWindow(BRIEF, cv2.CV_32F)
        self._due = -np.inf
        self._brief = array("d")  # six numbers a frame: tuples of an hour's would be ten times as large
        self._looks: list[int] = []
        self._faces: list[np.ndarray] = []
        self._seen: list[np.ndarray] = []
        self._unscored: list[np.ndarray] = []
        self._scores: list[np.ndarray] = [np.zeros(0)]

    def see(self, number: int, frame: np.ndarray, time: float, square: tuple[int, int]) -> None:
        """The next frame (H, W, 3) uint8; what it measures with square pixels."""
        small = fitted(frame, (WIDTH, max(8, round(WIDTH * square[1] / square[0]))))
        grey = cv2.cvtColor(cv2.resize(small, BRIEF, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        now = grey.astype(np.float32)
        change, alike, shift = 0.0, 1.0, (0.0, 0.0)
        if self._before is not None:
            change, alike = float(np.abs(now - self._before).mean()), _correlation(now, self._before)
            if change > 0.5:  # copies: OpenCV 5 writes into its arguments
                shift, _ = cv2.phaseCorrelate(self._before.copy(), now.copy(), self._window)
        self._before = now
        self._brief.extend((float(now.mean()), float(now.std()), change, alike, *shift))
        cut = change > JUMP and alike < UNLIKE
        if cut or time >= self._due:
            self._due = time + 1 / LOOKS - 1e-3
            self._look(number, frame, small, square, cut)

    def summary(self, size: tuple[int, int], begins: np.ndarray) -> Watched:
        """All that was seen."""
        self._score()
        brief, seen = np.frombuffer(self._brief).reshape(-1, 6), np.stack(self._seen)
        thumbs, across, down = np.split(seen, np.cumsum([THUMB[0] * THUMB[1], self._cells]), 1)
        graded = np.concatenate(self._scores)
        return Watched(
            size=size, begins=begins, cut=cuts(brief[:, 2], brief[:, 3]), light=brief[:, 0],
            contrast=brief[:, 1], change=brief[:, 2], shift=brief[:, 4:] / BRIEF[0],
            looks=np.array(self._looks), faces=self._faces, across=across, down=down, thumbs=thumbs,
            quality=np.interp(np.arange(len(across)), GRADED * np.arange(len(graded)), np.nan_to_num(graded)),
        )  # fmt: skip

    def _look(
        self, number: int, frame: np.ndarray, small: np.ndarray, square: tuple[int, int], cut: bool
    ) -> None:
        if cut:
            self._move = Motion()
        motion, _ = self._move(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        seen = weigh(small, motion, self._gaze.saliency)
        thumb = cv2.resize(small, THUMB, interpolation=cv2.INTER_AREA).mean(2, dtype=np.float32)
        self._cells = seen.shape[1]
        self._seen.append(np.concatenate([thumb.ravel(), seen.sum(0), seen.sum(1)], dtype=np.float32))
        if self._gaze.finder:
            shown = frame if frame.shape[1::-1] == square else fitted(frame, square)
            self._faces.append(self._gaze.finder(shown))
        else:
            self._faces.append(np.zeros((0, 5)))
        if len(self._looks) % GRADED == 0:
            self._unscored.append(fitted(frame, self._gaze.scorer.size))
            if len(self._unscored) == BATCH:
                self._score()
        self._looks.append(number)

    def _score(self) -> None:
        if self._unscored:
            self._scores.append(self._gaze.scorer(self._unscored))
            self._unscored = []


def cuts(change: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Frames (N,) bool that begin a shot, by their differences from the frames before and correlations (N,).

    A cut is a jump that stands out from the frames around it; in a flash or a shaken camera there are many.
    """
    found = np.zeros(len(change), bool)
    for n in np.flatnonzero((change > JUMP) & (alike < UNLIKE)):
        around = np.concatenate([change[max(0, n - 8) : n], change[n + 1 : n + 9]])
        found[n] = not len(around) or change[n] > 2.5 * np.median(around)
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    lengths = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if lengths > 1e-6:
        return float((a * b).sum()) / lengths
    return float(not a.any() and not b.any())  # of one colour is like of one colour only
