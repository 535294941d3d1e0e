"""The place behind the presenter: a wall with decoration, and soft lights that drift."""

from __future__ import annotations

import numpy as np

from lab.presenter.render.brush import Brush, shade
from lab.presenter.render.identity import Identity


def draw_wall(who: Identity, width: int, height: int) -> np.ndarray:
    """The still part (height, width, 3) uint8."""
    wall, floor, decor = who.backdrop_colours
    ramp = np.linspace(0, 1, height)[:, None, None]
    picture = np.ascontiguousarray(
        np.broadcast_to(np.array(wall) * (1 - ramp) + np.array(floor) * ramp, (height, width, 3)).astype(
            np.uint8
        )
    )
    brush, layout = Brush(picture), who.backdrop_layout
    if who.backdrop == "panel":
        x, y = 0.02 + 0.5 * layout[0], 0.12 + 0.2 * layout[1]
        _box(brush, x, y, x + 0.34 + 0.15 * layout[2], y + 0.3 + 0.2 * layout[3], decor)
    elif who.backdrop == "window":
        for column in range(2):
            x = 0.04 + 0.3 * layout[0] + column * 0.34
            _box(brush, x, 0.10, x + 0.29, 0.62 + 0.2 * layout[1], shade(decor, 1.4))
            brush.path(
                np.array([(x + 0.145, 0.10), (x + 0.145, 0.62 + 0.2 * layout[1])]), shade(wall, 0.7), 0.014
            )
    elif who.backdrop == "shelf":
        for row in range(3):
            y = 0.30 + 0.36 * row + 0.1 * layout[0]
            brush.path(np.array([(-0.1, y), (1.1, y)]), shade(wall, 0.55), 0.025)
            for item in range(4):
                x, high = (
                    item * 0.27 + 0.16 * layout[3 * row + item],
                    0.09 + 0.15 * layout[2 + 2 * row + item],
                )
                colour = shade((decor, floor, wall)[(item + row) % 3], 0.65 + 0.6 * layout[1 + item + row])
                _box(brush, x, y - high, x + 0.09 + 0.07 * layout[item], y - 0.01, colour)
    return picture


def add_lights(picture: np.ndarray, who: Identity, lights: np.ndarray) -> np.ndarray:
    """The wall (H, W, 3) with its lights (L, 3: two drifts, a brightness) added; a new array."""
    height, width, _ = picture.shape
    lit = picture.astype(np.float32)
    layout = np.array(who.backdrop_layout)
    for n, (dx, dy, glow) in enumerate(lights):
        x = (layout[n] + 0.09 * dx) * width
        y = (0.1 + 0.95 * layout[(n + 5) % 12] + 0.09 * dy) * width
        radius = (0.05 + 0.06 * layout[(n + 3) % 12]) * width
        left, right = max(0, int(x - radius - 1)), min(width, int(x + radius + 2))
        top, bottom = max(0, int(y - radius - 1)), min(height, int(y + radius + 2))
        if left >= right or top >= bottom:
            continue
        distance = np.hypot(np.arange(left, right)[None] - x, np.arange(top, bottom)[:, None] - y)
        disc = np.clip((radius - distance) / (0.25 * radius), 0, 1)[..., None]
        tint = np.array((255, 238, 200) if n % 2 else (210, 230, 255), np.float32)
        alpha = (0.30 + 0.18 * glow) * disc
        lit[top:bottom, left:right] += (tint - lit[top:bottom, left:right]) * alpha
    return lit.clip(0, 255).astype(np.uint8)


def _box(brush: Brush, x0: float, y0: float, x1: float, y1: float, colour: tuple) -> None:
    brush.polygon(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), colour)
