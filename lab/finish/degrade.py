"""Known degradations of a picture, each with a strength from 0 to 1, and the quality that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

UNIT = 192  # pixels of the short side that lengths are given for
# What full strength costs; costs of several multiply. Eyes are closed where the picture is drawn.
COST = {
    "blur": 0.9, "motion": 0.85, "noise": 0.75, "dark": 0.8, "bright": 0.8, "compression": 0.75,
    "blend": 0.85, "eyes": 0.25,
}  # fmt: skip
Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def quality(strengths: Mapping[str, float]) -> float:
    """What is left of 1 after degradations of those strengths."""
    return float(np.prod([1 - COST[name] * strength for name, strength in strengths.items()]))


def degrade(
    picture: np.ndarray, strengths: Mapping[str, float], other: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """The picture (H, W, 3) uint8 after those degradations; other, of its shape, is blended in.

    Light comes first, then the lens, the sensor and the encoder, as in a camera.
    """
    changes: dict[str, Change] = {
        "blend": lambda p, s, _: cv2.addWeighted(p, 1 - s / 2, other, s / 2, 0),
        "dark": lambda p, s, _: levels(p * (1 - 0.88 * s)),
        "bright": lambda p, s, _: levels(p * (1 + 0.9 * s) + 60 * s),
        "blur": _blurred,
        "motion": _moved,
        "noise": lambda p, s, rng: levels(p + rng.standard_normal(p.shape, np.float32) * 40 * s),
        "compression": lambda p, s, _: encoded(p, 15 * (1 - s) ** 1.2 + 2),
    }
    for name, change in changes.items():
        if strengths.get(name, 0) > 0:
            picture = change(picture, strengths[name], random)
    return picture


def encoded(picture: np.ndarray, jpeg_quality: float) -> np.ndarray:
    """The picture after JPEG of that quality, 1 to 100."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, round(jpeg_quality)])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def levels(values: np.ndarray) -> np.ndarray:
    """Rounded to 8 bits."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _unit(picture: np.ndarray) -> float:
    return min(picture.shape[:2]) / UNIT


def _blurred(picture: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), max(0.1, 4 * strength * _unit(picture)))


def _moved(picture: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Smeared along a straight line in any direction."""
    length = 1 + 20 * strength * _unit(picture)
    size = 2 * int(np.ceil(length / 2)) + 1
    line = np.zeros((size, size), np.float32)
    angle, middle = random.uniform(0, np.pi), size // 2
    ends = [(middle + sign * length / 2 * np.array([np.cos(angle), np.sin(angle)])) * 16 for sign in (-1, 1)]
    start, stop = (tuple(int(round(v)) for v in end) for end in ends)
    cv2.line(line, start, stop, 1.0, 1, cv2.LINE_AA, 4)
    return cv2.filter2D(picture, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE)
