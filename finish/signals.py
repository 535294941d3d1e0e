"""What there is to see and hear in a video, several times a second, in one pass and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.similarity import Extractor
from finish.cover import ahead
from finish.fit import fitted
from finish.saliency import WIDTH, Detector, Motion, weigh
from finish.scorer import BATCH, Scorer
from finish.sound import QUIETEST, loudness
from pipeline.video.info import VideoInfo
from pipeline.video.reader import VideoReader

TICKS = 6  # a second that pictures are looked at
GRADED = 3  # ticks between pictures that are scored


@dataclass(frozen=True)
class Signals:
    """A video at T ticks, `rate` of them a second; size is (width, height) of its frames.

    places: when each frame begins, in ticks (N,); maps: what is to be seen where (T, rows, columns) float16;
    motion: how much moves (T,); cut: whether a cut lies before (T,); quality: of the cover network (T,);
    feature: of the spatio-temporal network, of about a second (T, C); sound: decibels (T,), or None where
    there is none.
    """

    rate: float
    size: tuple[int, int]
    places: np.ndarray
    maps: np.ndarray
    motion: np.ndarray
    cut: np.ndarray
    quality: np.ndarray
    feature: np.ndarray
    sound: np.ndarray | None


@dataclass(frozen=True)
class Eyes:
    """The networks that look: the scorer of pictures, the extractor of features, perhaps a detector."""

    scorer: Scorer
    extractor: Extractor
    detector: Detector | None = None


def measure(path: Path, eyes: Eyes) -> Signals:
    """Look through a whole video. InputError: it is damaged."""
    look = _Look(eyes)
    with VideoReader(path) as reader:
        for picture in ahead(_at_ticks(reader)):
            look.see(picture)
    quality, features = look.finish()
    ticks, info = len(look.motion), reader.info
    rate, places = _placed(info)
    sound = loudness(path, rate, (info.begins[0], info.begins[-1]))
    if sound is not None:
        sound = np.append(sound, np.full(max(0, ticks - len(sound)), QUIETEST))[:ticks]
    return Signals(
        rate,
        (reader.width, reader.height),
        places[:-1],
        np.stack(look.maps),
        np.array(look.motion),
        np.array(look.cut),
        np.interp(np.arange(ticks), GRADED * np.arange(len(quality)), quality),
        np.repeat(features, TICKS, 0)[:ticks],
        sound,
    )


def _placed(info: VideoInfo) -> tuple[float, np.ndarray]:
    """Ticks a second, and the tick at which each frame begins and the last one ends (N + 1,).

    Where frames are evenly spaced there is a tick every so many frames. In slides there is, too: at a tick
    every so many seconds each would be seen hundreds of times.
    """
    if info.variable_rate and info.fps >= 1:
        return TICKS, (info.begins - info.begins[0]) * TICKS
    step = max(1, round(float(info.fps) / TICKS))
    return float(info.fps) / step, np.arange(info.frames + 1) / step


def _at_ticks(reader: VideoReader) -> Iterator[np.ndarray]:
    """The picture that is shown at each tick."""
    ticks = np.ceil(_placed(reader.info)[1]).astype(int)
    for frame, begin, end in zip(reader, ticks, ticks[1:], strict=False):
        yield from [frame] * (end - begin)


class _Look:
    """Takes pictures one by one, and keeps what Signals holds of them."""

    def __init__(self, eyes: Eyes) -> None:
        self._eyes, self._move = eyes, Motion()
        self.maps: list[np.ndarray] = []
        self.motion: list[float] = []
        self.cut: list[bool] = []
        self._unscored: list[np.ndarray] = []
        self._second: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def see(self, picture: np.ndarray) -> None:
        """The next tick's picture (H, W, 3) uint8."""
        height = max(8, round(WIDTH * picture.shape[0] / picture.shape[1]))
        small = fitted(picture, (WIDTH, height))
        motion, cut = self._move(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        if len(self.motion) % GRADED == 0:
            self._unscored.append(picture)
            if len(self._unscored) == BATCH:
                self._score()
        self._second.append(fitted(picture, self._eyes.extractor.spec.size))
        if len(self._second) == TICKS:
            self._recognise()
        self.maps.append(weigh(small, motion, self._eyes.detector).astype(np.float16))
        self.motion.append(float(motion.mean()))
        self.cut.append(cut)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Qualities and features of all pictures."""
        if self._unscored:
            self._score()
        if self._second:
            self._recognise()
        return np.nan_to_num(np.concatenate(self._scores)), np.stack(self._features)

    def _score(self) -> None:
        self._scores.append(self._eyes.scorer(self._unscored))
        self._unscored = []

    def _recognise(self) -> None:
        self._features.append(self._eyes.extractor.features(np.stack(self._second))[0])
        self._second = []
