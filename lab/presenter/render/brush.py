"""Antialiased shapes in canvas widths on an RGB picture, over OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

SUBPIXEL = 4
Colour = tuple[int, int, int]


class Brush:
    """Draws on an RGB canvas (H, W, 3) uint8; lengths are in canvas widths, y points down."""

    def __init__(self, canvas: np.ndarray) -> None:
        self.canvas = canvas
        self.scale = canvas.shape[1]
        self.fixed = self.scale * (1 << SUBPIXEL)

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        """Fill a polygon (N, 2)."""
        cv2.fillPoly(self.canvas, [self._points(points)], colour, cv2.LINE_AA, SUBPIXEL)

    def path(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """Stroke an open polyline (N, 2) with round joints."""
        cv2.polylines(
            self.canvas, [self._points(points)], False, colour, self.pixels(width), cv2.LINE_AA, SUBPIXEL
        )

    def disc(self, centre: np.ndarray, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self._circle(centre, radius, colour, -1)

    def ring(self, centre: np.ndarray, radius: float, colour: Colour, width: float) -> None:
        """Stroke a circle."""
        self._circle(centre, radius, colour, self.pixels(width))

    def limb(self, a: np.ndarray, b: np.ndarray, width_a: float, width_b: float, colour: Colour) -> None:
        """Fill a tapered stroke with round ends; widths are full widths at a and b."""
        along = b - a
        normal = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9)
        half_a, half_b = normal * width_a / 2, normal * width_b / 2
        self.polygon(np.array([a + half_a, b + half_b, b - half_b, a - half_a]), colour)
        self.disc(a, width_a / 2, colour)
        self.disc(b, width_b / 2, colour)

    def pixels(self, width: float) -> int:
        """A stroke width in whole pixels of this canvas."""
        return max(1, round(width * self.scale))

    def _circle(self, centre: np.ndarray, radius: float, colour: Colour, thickness: int) -> None:
        x, y = self._points(centre).tolist()
        size = max(1, round(radius * self.fixed))
        cv2.circle(self.canvas, (x, y), size, colour, thickness, cv2.LINE_AA, SUBPIXEL)

    def _points(self, points: np.ndarray) -> np.ndarray:
        return np.round(np.clip(points, -2, 4) * self.fixed).astype(np.int32)


def rounded(points: np.ndarray, rounds: int = 2) -> np.ndarray:
    """A closed polygon (N, 2) with its corners cut (Chaikin), 2**rounds times as many points."""
    for _ in range(rounds):
        after = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


def shade(colour: Colour, factor: float) -> Colour:
    """The colour darkened (factor < 1) or moved towards white (factor > 1)."""
    if factor <= 1:
        return tuple(int(c * factor) for c in colour)
    return tuple(int(255 - (255 - c) * (2 - factor)) for c in colour)
