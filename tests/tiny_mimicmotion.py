"""MimicMotion in small: a folder with random weights in its layout, and inputs for it."""

import numpy as np

from generators.contract import load_generator
from generators.mimicmotion.random_weights import write_folder

SIZE = (64, 64)


def write_tiny(folder, **settings):
    """A generator of a new folder: windows of 6 that share 2, three steps, 64x64 pixels, unless told."""
    write_folder(folder, "tiny")
    width, height = SIZE
    plain = {"width": width, "height": height, "steps": 3, "tile": 6, "overlap": 2, **settings}
    text = "".join(f"{name} = {str(value).lower()}\n" for name, value in plain.items())
    (folder / "vivace.toml").write_text(text)
    return load_generator(f"mimicmotion={folder}")


def clip(frames, size=SIZE, seed=0):
    """Skeletons (frames, H, W, 3) and a picture (H, W, 3) of soft random shapes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (frames + 1, size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
    pixels = coarse.repeat(8, 1).repeat(8, 2)[:, : size[1], : size[0]]
    return pixels[1:], pixels[0]
