"""Draw OpenPose key points as a skeleton frame: coloured limbs and joints, rainbow hands, on black."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

LIMBS = [
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
]
PALETTE = [tuple(int(255 * c) for c in colorsys.hsv_to_rgb(i / 18, 1, 1)) for i in range(18)]
HAND_EDGES = [(0 if j == 0 else 4 * f + j, 4 * f + j + 1) for f in range(5) for j in range(4)]
HAND_PALETTE = [tuple(int(255 * c) for c in colorsys.hsv_to_rgb(i / 20, 1, 1)) for i in range(20)]
SUBPIXEL = 4


def draw_skeleton(body: np.ndarray, hands: np.ndarray, width: int, height: int) -> np.ndarray:
    """One skeleton frame (height, width, 3) uint8 RGB.

    body (18, 2) and hands (2, 21, 2) are in canvas widths, NaN where unseen. Colours follow OpenPose: the
    limb from neck to right shoulder is red, hand edges run through the hue circle, hand joints are blue.
    """
    scale = 2 * width
    canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
    stroke = max(2, round(0.030 * width))
    for (a, b), colour in zip(LIMBS, PALETTE, strict=False):
        if not np.isnan(body[[a, b]]).any():
            dim = tuple(int(0.6 * c) for c in colour)
            _line(canvas, body[a], body[b], dim, stroke, scale)
    for point, colour in zip(body, PALETTE, strict=True):
        if not np.isnan(point).any():
            _dot(canvas, point, colour, 0.014, scale)
    for hand in hands:
        for (a, b), colour in zip(HAND_EDGES, HAND_PALETTE, strict=True):
            _line(canvas, hand[a], hand[b], colour, max(1, round(0.016 * width)), scale)
        for point in hand:
            _dot(canvas, point, (0, 0, 255), 0.0075, scale)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def _fixed(point: np.ndarray, scale: float) -> tuple[int, int]:
    x, y = np.round(np.clip(point, -2, 4) * (scale * (1 << SUBPIXEL))).astype(int)
    return int(x), int(y)


def _line(
    canvas: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple, thickness: int, scale: float
) -> None:
    cv2.line(canvas, _fixed(a, scale), _fixed(b, scale), colour, thickness, cv2.LINE_AA, SUBPIXEL)


def _dot(canvas: np.ndarray, point: np.ndarray, colour: tuple, radius: float, scale: float) -> None:
    size = round(radius * scale * (1 << SUBPIXEL))
    cv2.circle(canvas, _fixed(point, scale), size, colour, -1, cv2.LINE_AA, SUBPIXEL)
