"""Who the presenter is and where: build, skin, hair, clothes and backdrop, drawn from a seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from lab.presenter.render.brush import Colour
from lab.presenter.render.motion import Build

SKINS = [(255, 224, 196), (244, 203, 168), (228, 178, 136), (199, 144, 102), (158, 106, 72), (112, 74, 52)]
HAIRS = [
    (28, 24, 26),
    (58, 40, 32),
    (104, 66, 38),
    (164, 108, 56),
    (214, 172, 104),
    (150, 148, 150),
    (120, 44, 34),
]
HAIR_STYLES = ("short", "side", "long", "bob", "bun", "curly", "bald")
TOPS = ("tee", "suit", "sweater", "shirt", "tank")
BACKDROPS = ("plain", "panel", "window", "shelf")


@dataclass(frozen=True)
class Identity:
    """Everything the reference image shows and the skeleton does not."""

    build: Build
    skin: Colour
    hair: Colour
    hair_style: str
    eye: Colour
    glasses: bool
    beard: bool
    top: str
    top_colour: Colour
    accent: Colour
    backdrop: str
    backdrop_colours: tuple[Colour, Colour, Colour]
    backdrop_layout: tuple[float, ...]


def random_identity(seed: int) -> Identity:
    """The person and place of that seed; always the same."""
    rng = np.random.default_rng((seed, 0))
    build = Build(rng.uniform(0.9, 1.12), rng.uniform(0.92, 1.08), rng.uniform(0.95, 1.05))
    style = str(rng.choice(HAIR_STYLES, p=[0.22, 0.18, 0.18, 0.14, 0.11, 0.11, 0.06]))
    hue = rng.random()
    wall = _colour(hue, rng.uniform(0.1, 0.55), rng.uniform(0.35, 0.9))
    floor = _colour(hue + rng.uniform(-0.08, 0.08), rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.8))
    decor = _colour(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.4, 0.95))
    top_hue = rng.random()
    return Identity(
        build=build,
        skin=_mix(SKINS, rng.uniform(0, len(SKINS) - 1)),
        hair=tuple(
            int(c) for c in np.clip(np.array(HAIRS[rng.integers(len(HAIRS))]) + rng.integers(-8, 9), 0, 255)
        ),
        hair_style=style,
        eye=[(70, 46, 30), (52, 84, 120), (62, 96, 64)][rng.integers(3)],
        glasses=bool(rng.random() < 0.25),
        beard=bool(style in ("short", "side", "bald") and rng.random() < 0.35),
        top=str(rng.choice(TOPS)),
        top_colour=_colour(top_hue, rng.uniform(0.15, 0.85), rng.uniform(0.25, 0.95)),
        accent=_colour(top_hue + rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.95)),
        backdrop=str(rng.choice(BACKDROPS)),
        backdrop_colours=(wall, floor, decor),
        backdrop_layout=tuple(rng.random(12)),
    )


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _mix(colours: list[Colour], position: float) -> Colour:
    low = min(int(position), len(colours) - 2)
    part = position - low
    return tuple(int(a + (b - a) * part) for a, b in zip(colours[low], colours[low + 1], strict=True))
