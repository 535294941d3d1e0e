"""Make inputs like the presenter's tuning set, and inputs unlike it: real ones, other styles, speeds,
lengths.

A part of the bed is a pure function of its name and the real files; no two parts share a person, a picture or
a stretch of a skeleton video. Skeletons and pictures come at the presenter's size, as infer.py fits them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from generators.contract import Generator
from lab.presenter.evaluate import HELD_OUT_SEED
from lab.presenter.render.clip import Clip
from pipeline.video.image import read_image
from pipeline.video.reader import read

WINDOW = 16  # frames of most samples: one window of the presenter
LONG = 48  # of two like ones
PARTS = ("like", "calibration", "heldout")
PEOPLE = {"like": 0, "calibration": 10_000, "heldout": 20_000}  # first seed beyond HELD_OUT_SEED


@dataclass(frozen=True)
class Sample:
    """An input: what is unlike about it, skeleton frames (F, H, W, 3) and the person (H, W, 3)."""

    id: str
    kind: str
    skeletons: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class Real:
    """Real files of a folder with skeletons/, images/ and footage/, fitted to the generator's size."""

    folder: Path
    generator: Generator

    def stretch(self, path: str, part: str, place: float, frames: int, speed: float) -> np.ndarray:
        """Return frames from a place (0 to 1) of half a video, at a speed; calibration has the first half."""
        whole = _read(self.folder / path, self.generator)
        half = len(whole) // 2
        own = whole[:half] if part == "calibration" else whole[half:]
        span = (frames - 1) * speed
        start = place * max(len(own) - 1 - span, 0)
        return own[np.minimum(start + np.arange(frames) * speed, len(own) - 1).astype(int)]

    def picture(self, number: int, part: str) -> np.ndarray:
        """Return a real picture; no two parts have the same."""
        own = [self.folder / path for path in PHOTOGRAPHS[part]]
        count = len(own) + 1  # and a frame of the footage
        if number % count == len(own):
            return self.stretch("footage/bikes.mp4", part, (number / 10) % 1, 1, 1.0)[0]
        return self.generator.fit(read_image(own[number % count], notes=[])[None])[0]


@cache
def _read(path: Path, generator: Generator) -> np.ndarray:
    return np.concatenate([generator.fit(frame[None]) for frame in read(path).frames])


SKELETONS = ("moore-2", "videox-fun", "wan22-landscape-50fps-mpeg4")
SPEEDS = (1.0, 2.0, 0.5, 3.0)
PHOTOGRAPHS = {
    "calibration": ("images/moore-anime-rgba.png", "images/wan22-cat-exif.JPG"),
    "heldout": (
        "images/videox-fun-camera-palette.png",
        "images/wan22-elf-landscape.jpeg",
        "made/woman-display-p3.jpg",
    ),
}


def like(count: int = 20) -> Iterator[Sample]:
    """Return the first held-out people, those of `python -m lab.presenter sample-data --held-out`."""
    for number in range(count):
        clip = Clip(HELD_OUT_SEED + number)
        frames = LONG if number in (3, 11) else WINDOW
        yield Sample(f"like-{number:02}", "like", clip.skeletons(clip.times(frames)), clip.reference())


def unlike(part: str, real: Real) -> Iterator[Sample]:
    """Return samples of a part, calibration or heldout (twice as many), the kinds mixed."""
    makers = _makers(part, real)
    people = (Clip(HELD_OUT_SEED + PEOPLE[part] + number) for number in range(10_000))
    counts: dict[str, int] = {}
    rounds = range(4 if part == "calibration" else 8)
    for turn in rounds:
        for kind, (every, make) in makers.items():
            if turn % every:
                continue
            number = counts[kind] = counts.get(kind, -1) + 1
            skeletons, image = make(number, next(people))
            yield Sample(f"{part[0]}-{kind}-{number:02}", kind, skeletons, image)


Make = Callable[[int, Clip], tuple[np.ndarray, np.ndarray]]


def _makers(part: str, real: Real) -> dict[str, tuple[int, Make]]:
    """By kind: of which turns it has one, and what makes its sample of a number from a rendered clip."""
    offset = 0 if part == "calibration" else 4  # the styles of the parts begin at different ones

    def skeleton(number: int) -> np.ndarray:
        path = f"skeletons/{SKELETONS[number % 3]}.mp4"
        return real.stretch(path, part, (0.37 * number) % 1, WINDOW, SPEEDS[number % 4])

    def real_pair(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return skeleton(number), real.picture(number // 2, part)

    def second_pair(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return skeleton(number + 5), real.picture(number + 1, part)

    def real_skeleton(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return skeleton(number + 1), clip.reference()

    def real_picture(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return _drawn(clip), real.picture(number, part)

    def drawn_otherwise(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return list(STYLES.values())[(number + offset) % len(STYLES)](_drawn(clip)), clip.reference()

    def picture_otherwise(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        change = list(PICTURES.values())[(number + offset) % len(PICTURES)]
        return _drawn(clip), change(clip.reference())

    def short(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return _drawn(clip, (2, 4, 8, 3, 6, 5, 7, 2)[(number + offset) % 8]), clip.reference()

    def paced(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        return _drawn(clip, pace=(3.0, 0.0, 0.3, 5.0)[(number + offset) % 4]), clip.reference()

    def no_skeleton(number: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        shown = (
            lambda: real.stretch("footage/bikes.mp4", part, 0.2 * number % 1, WINDOW, 1.0),
            lambda: real.stretch("skeletons/densepose-not-a-skeleton.mp4", part, 0.3, WINDOW, 1.0),
            lambda: np.where(_drawn(clip).max(-1, keepdims=True) > 24, _drawn(clip), 255).astype(np.uint8),
            lambda: clip.frames(clip.times(WINDOW)),
        )
        return shown[number % 4](), clip.reference()

    return {
        "real-pair": (1, real_pair),
        "real-pair-b": (1, second_pair),
        "real-skeleton": (1, real_skeleton),
        "real-picture": (1, real_picture),
        "skeleton-style": (1, drawn_otherwise),
        "picture-style": (1, picture_otherwise),
        "short": (1, short),
        "pace": (2, paced),
        "no-skeleton": (2, no_skeleton),
    }


def _drawn(clip: Clip, frames: int = WINDOW, pace: float = 1.0) -> np.ndarray:
    return clip.skeletons(clip.times(frames) * pace)


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda frames: np.stack([change(frame) for frame in frames])


def _moved(scale: float, right: float, down: float) -> Callable[[np.ndarray], np.ndarray]:
    """Scale about the middle and shift by parts of the size, on black."""

    def move(frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        x, y = (1 - scale) * width / 2 + right * width, (1 - scale) * height / 2 + down * height
        return cv2.warpAffine(frame, np.float32([[scale, 0, x], [0, scale, y]]), (width, height))

    return move


def _grey(frame: np.ndarray) -> np.ndarray:
    return frame.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)


def _white_lines(frame: np.ndarray) -> np.ndarray:
    return np.where(frame.max(-1, keepdims=True) > 24, 255, 0).repeat(3, -1).astype(np.uint8)


def _levels(factor: float, offset: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda frame: np.clip(frame * factor + offset, 0, 255).astype(np.uint8)


def _noisy(picture: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 20, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


STYLES = {
    "thick": _each(lambda frame: cv2.dilate(frame, np.ones((5, 5)))),
    "small": _each(_moved(0.6, 0, 0.1)),
    "other colours": lambda frames: np.ascontiguousarray(frames[..., ::-1]),
    "shifted": _each(_moved(1.0, 0.2, 0.0)),
    "thin": _each(lambda frame: cv2.erode(frame, np.ones((2, 2)))),
    "large": _each(_moved(1.5, 0, -0.1)),
    "white": _each(_white_lines),
    "mirrored": lambda frames: np.ascontiguousarray(frames[:, :, ::-1]),
}
PICTURES = {
    "blurred": lambda picture: cv2.GaussianBlur(picture, (0, 0), 3),
    "dark": _levels(0.4, 0),
    "grey": _grey,
    "mirrored": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "bright": _levels(0.7, 75),
    "far away": _moved(0.6, 0, 0.1),
    "noisy": _noisy,
    "turned colours": lambda picture: np.ascontiguousarray(picture[..., [1, 2, 0]]),
}
