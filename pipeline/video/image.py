"""Read the reference picture as 8-bit sRGB from the kinds of picture files that cameras and editors write."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import FILE_ERRORS, InputError, check_file
from pipeline.video.png_data import check_png

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_000_000  # 267 MB as RGB
# Suffixes by Pillow's names. No other format is opened: EPS starts Ghostscript, and others are rarely tried.
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
}
PICTURE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
SAME_COLOURS = 2  # levels: a profile that moves no colour further is sRGB, of which there are many variants


def picture_format(path: Path) -> str | None:
    """Name a file's format, a key of FORMATS, by its first bytes; None for what is no picture. OSError."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        size = int.from_bytes(start[:4], "big")
        brands = {start[place : place + 4] for place in (8, *range(16, min(size, 64), 4))}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIF" if brands & HEIF_BRANDS else None
    return next((name for beginning, name in BEGINNINGS.items() if start.startswith(beginning)), None)


def read_image(
    path: str | Path, *, notes: list[str] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation, in sRGB's colours.

    The format is known by the content, not by the suffix. Transparent parts become white; colours are
    converted from the file's ICC profile; 16-bit grey is scaled, not clipped; palette, grey and CMYK are
    converted; an animation gives its first picture. Sentences on these for the user are appended to notes.
    InputError: no file, empty, not a picture of FORMATS, damaged or incomplete, 32-bit pixels of unknown
    range, above max_pixels, or the package that reads it is missing.
    """
    path, notes = Path(path), [] if notes is None else notes
    check_file(path, "picture")
    kind = picture_format(path)
    if kind is None:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: is not a picture. Expected one of {known}; give another file.")
    try:
        with _limited(max_pixels, path, notes):
            image = _loaded(path, kind, max_pixels, notes)
            return _srgb(image, _rgb(image, kind, path, notes), path, notes)
    except InputError:
        raise
    except FILE_ERRORS as error:
        why = f"damaged ({str(error) or type(error).__name__})"
        raise InputError(f"{path}: is {why}. Expected a whole {kind} file; save it again.") from error


def _loaded(path: Path, kind: str, max_pixels: int, notes: list[str]) -> Image.Image:
    """Return a picture, decoded and turned upright. InputError: too large, or its package is missing."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    _prepare(path, kind)
    try:
        opened = Image.open(path, formats=[kind])
    except UnidentifiedImageError as error:
        raise ValueError("its beginning cannot be read") from error
    with opened as image:
        if image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height} pixels"
            raise InputError(f"{path}: is too large ({size}). The limit is {max_pixels}; scale down.")
        if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photo and its previews
            notes.append(f"{path}: holds several pictures; the first one was taken")
        image.load()
        if kind == "PNG":
            check_png(path)
        elif kind == "JPEG" and _ends_grey(image):
            notes.append(f"{path}: its last rows are plain grey, as where a JPEG's data is missing")
        return ImageOps.exif_transpose(image)


def _ends_grey(image: Image.Image) -> bool:
    """Tell whether a JPEG's last row of blocks has the colour that libjpeg gives to blocks without data."""
    rows = image.crop((0, max(image.height - 8, 0), *image.size))
    return image.mode in ("L", "RGB") and set(rows.convert("L").getextrema()) == {128}


def _prepare(path: Path, kind: str) -> None:
    """Get Pillow ready for a format that not every Pillow reads. InputError: what it needs is missing."""
    from PIL import features

    if kind == "AVIF" and not features.check("avif"):
        raise InputError(f"{path}: is AVIF. Save it as PNG or JPEG, or run: pip install 'pillow>=11.3'")
    if kind == "HEIF":
        try:
            import pi_heif
        except ImportError as error:
            how = "Save it as PNG or JPEG, or run: pip install pi-heif"
            raise InputError(f"{path}: is HEIC, for which a package is missing. {how}") from error
        pi_heif.register_heif_opener()


@contextlib.contextmanager
def _limited(max_pixels: int, path: Path, notes: list[str]) -> Iterator[None]:
    """Set Pillow's own limit of pixels, and collect its warnings in notes.

    Warnings are caught of all threads: those that are not Pillow's are given again.
    """
    from PIL import Image

    usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # _loaded checks
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = usual
    own, said = Path(Image.__file__).parent, {}
    for each in caught:
        if own in Path(each.filename).parents:
            said[" ".join(str(each.message).split())] = None
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    notes.extend(f"{path}: was read, but Pillow said: {text}" for text in said)


def _rgb(image: Image.Image, kind: str, path: Path, notes: list[str]) -> Image.Image:
    """Return a loaded picture in mode RGB, in its own colours. InputError: 32-bit pixels."""
    from PIL import Image

    low, high = image.getextrema() if image.mode in ("I", "F") else (0, 65535)
    if image.mode == "F" or low < 0 or high > 65535:
        raise InputError(f"{path}: has 32-bit pixels of unknown range. Expected 8 or 16 bits; save as PNG.")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.uint32)
        if image.mode == "I" and kind == "TIFF" and high <= 255:  # some programs save 8 bits as 32
            notes.append(f"{path}: has 32-bit pixels, none above 255; they were taken as 8 bits")
        else:
            if grey.max() <= 255:
                notes.append(f"{path}: has 16-bit pixels, none above 255 of 65535, so it is black")
            grey = (grey * 255 + 32767) // 65535
        grey = grey.astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            notes.append(f"{path}: is transparent in places; these were made white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _srgb(image: Image.Image, rgb: Image.Image, path: Path, notes: list[str]) -> np.ndarray:
    """Convert a picture from its ICC profile's colours to sRGB; return its pixels (H, W, 3) uint8.

    rgb: what _rgb made of it, which is returned unchanged without a profile, with sRGB's, or a broken one.
    """
    from PIL import Image, ImageCms

    profile = image.info.get("icc_profile")
    if not profile:
        return np.array(rgb)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (mode == "CMYK" and image.mode != "CMYK"):
            raise ValueError(f"it is for {space!r}, the picture is {image.mode}")
        to_srgb = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
        colours = Image.fromarray(colours).convert(mode)
        moved = ImageCms.applyTransform(colours, to_srgb)
        changes = np.abs(np.asarray(moved, np.int16) - np.asarray(colours.convert("RGB"), np.int16))
        if mode != "CMYK" and changes.max() <= SAME_COLOURS:
            return np.array(rgb)
        own = image if mode == "CMYK" else rgb.convert(mode)
        name = "".join(filter(str.isprintable, ImageCms.getProfileDescription(source))) or space
        notes.append(f"{path}: its colours were converted from its profile ({name}) to sRGB")
        return np.array(ImageCms.applyTransform(own, to_srgb))
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError) as error:
        notes.append(f"{path}: its colour profile cannot be used ({error}); its colours are taken as sRGB")
        return np.array(rgb)
