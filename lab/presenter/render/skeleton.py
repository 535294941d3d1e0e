"""Draw OpenPose key points as a skeleton frame: coloured limbs and joints, rainbow hands, on black."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from lab.presenter.render.brush import Brush

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


def draw_skeleton(body: np.ndarray, hands: np.ndarray, width: int, height: int) -> np.ndarray:
    """One skeleton frame (height, width, 3) uint8 RGB.

    body (18, 2) and hands (2, 21, 2) are in canvas widths, NaN where unseen. Colours follow OpenPose: the
    limb from neck to right shoulder is red, hand edges run through the hue circle, hand joints are blue.
    """
    canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
    brush = Brush(canvas)
    stroke = max(0.015, 2 / brush.scale)  # small frames keep a limb of two pixels before they are halved
    for (a, b), colour in zip(LIMBS, PALETTE, strict=False):
        if not np.isnan(body[[a, b]]).any():
            brush.path(body[[a, b]], tuple(int(0.6 * c) for c in colour), stroke)
    for point, colour in zip(body, PALETTE, strict=True):
        if not np.isnan(point).any():
            brush.disc(point, 0.014, colour)
    for hand in hands:
        for (a, b), colour in zip(HAND_EDGES, HAND_PALETTE, strict=True):
            brush.path(hand[[a, b]], colour, 0.008)
        for point in hand:
            brush.disc(point, 0.0075, (0, 0, 255))
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
