"""Tell whether a PNG file holds all its pixels: Pillow makes missing rows black without a word."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
# Adam7, the PNG specification's interlacing: first column and row of each pass, and the steps between them.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PART = 1 << 16


def check_png(path: Path) -> None:
    """Raise ValueError if a PNG file, which Pillow has read, has less data than its size needs."""
    inflate, got = zlib.decompressobj(), 0
    with path.open("rb") as file:
        needed = _needed(file.read(33))
        for part in _image_data(path):
            while part and got < needed:
                got += len(inflate.decompress(part, PART))
                part = inflate.unconsumed_tail
    if got < needed:
        raise ValueError(f"it holds {got} of {needed} bytes of pixels")


def _needed(header: bytes) -> int:
    """Compute the bytes of all rows, with each row's filter type, from the file's first 33 bytes."""
    width, height, bits, colour, interlaced = struct.unpack("!16x2I2B2xB4x", header)
    row_bits = bits * SAMPLES[colour]
    total = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * row_bits // 8))
    return total


def _image_data(path: Path) -> Iterator[bytes]:
    """Give the content of a PNG file's IDAT chunks, in parts."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            left, kind = struct.unpack("!I4s", head)
            if kind != b"IDAT":
                file.seek(left, 1)
            while kind == b"IDAT" and left and (part := file.read(min(left, PART))):
                left -= len(part)
                yield part
            file.seek(4, 1)  # the checksum, which Pillow has verified
