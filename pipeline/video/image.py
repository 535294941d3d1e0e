"""Read the reference picture as 8-bit RGB from any kind of picture file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import InputError, check_file

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_000_000  # just below the size at which Pillow begins to warn


def read_image(
    path: str | Path, *, notes: list[str] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Transparent parts become white, and a sentence on this for the user is appended to notes. 16-bit grey is
    scaled, not clipped; palette, grey and CMYK are converted; an animation gives its first picture.
    InputError: no file, empty, not a picture, truncated, 32-bit pixels of unknown range, above max_pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    check_file(path, "picture")
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: is too large ({error}). The limit is {max_pixels}; scale down.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is not a picture. Expected PNG or JPEG; give another file.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{path}: is damaged ({error}). Expected PNG or JPEG; save it again.") from error
    return _rgb(upright, path, [] if notes is None else notes)


def _rgb(image: Image.Image, path: Path, notes: list[str]) -> np.ndarray:
    """Return the pixels of a loaded picture as (H, W, 3) uint8 RGB. InputError: 32-bit pixels."""
    from PIL import Image

    low, high = image.getextrema() if image.mode in ("I", "F") else (0, 65535)
    if image.mode == "F" or low < 0 or high > 65535:
        raise InputError(f"{path}: has 32-bit pixels of unknown range. Expected 8 or 16 bits; save as PNG.")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        grey = ((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            notes.append(f"{path}: is transparent in places; these were made white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
