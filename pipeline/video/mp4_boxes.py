"""Read the boxes of an MP4 file without ffmpeg: whether the file is complete, and its number of frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engines.errors import InputError

BOXES = {b"ftyp", b"styp", b"sidx", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"uuid"}


def check_whole(path: Path) -> None:
    """Raise InputError if an MP4 file ends inside one of its boxes.

    ffmpeg reports nothing when the file was cut exactly between two frames.
    """
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        for name, _, after in _boxes(file, 0, size):
            if name not in BOXES:
                return
            end = after
    if end > size:
        raise InputError(f"{path}: is truncated, {size} bytes of {end}. Expected all; copy the file again.")


def frames_in_header(path: Path) -> int | None:
    """Return the number of frames in the header of an MP4 or MOV file; None for a file without one.

    It is an estimate: only decoding gives the number of frames.
    """
    with path.open("rb") as file:
        for name, start, end in _boxes(file, 0, path.stat().st_size):
            if name not in BOXES:
                return None
            if name == b"moov":
                tracks = [(a, b) for each, a, b in _boxes(file, start, end) if each == b"trak"]
                return max((_samples(file, *track) for track in tracks), default=0) or None
    return None


def _samples(file: BinaryIO, start: int, end: int) -> int:
    """Return the number of frames of a track; 0 if it is not a video track."""
    media = _inside(file, (start, end), b"mdia")
    kind = _inside(file, media, b"hdlr")
    table = _inside(file, _inside(file, _inside(file, media, b"minf"), b"stbl"), b"stsz")
    if not kind or not table:
        return 0
    file.seek(kind[0])
    if file.read(12)[8:] != b"vide":
        return 0
    file.seek(table[0])
    sizes = file.read(12)
    return struct.unpack(">I", sizes[8:])[0] if len(sizes) == 12 else 0


def _inside(file: BinaryIO, parent: tuple[int, int] | None, name: bytes) -> tuple[int, int] | None:
    """Return start and end of the content of the first box of that name in a parent box's content."""
    boxes = _boxes(file, *parent) if parent else ()
    return next(((start, end) for each, start, end in boxes if each == name), None)


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Give (name, start of the content, end) of each box between two byte offsets."""
    end = min(end, file.seek(0, 2))  # an outer box may claim to be longer than any file
    while at + 8 <= end:
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return
        length, name = struct.unpack(">I4s", header[:8])
        content = at + 8
        if length == 1 and len(header) == 16:
            (length,), content = struct.unpack(">Q", header[8:]), at + 16
        length = length or end - at
        if length < 8:
            return
        yield name, content, at + length
        at += length
