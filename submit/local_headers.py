"""Hold the header before an entry's bytes against the list at a zip file's end: unpackers heed either."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FORM = struct.Struct("<4s5H3L2H")
MARK, DESCRIPTOR = b"PK\x03\x04", b"PK\x07\x08"
AFTERWARDS = 0x8  # of the flags: checksum and sizes follow the bytes, so the header may have 0 for them
IN_EXTRA = 0xFFFFFFFF  # for a size that is in a zip64 field
ZIP64, OTHER_NAME = 0x0001, 0x7075  # extra fields; by the latter Info-ZIP's unzip names the file otherwise


@dataclass(frozen=True)
class LocalHeader:
    """The header before an entry's bytes, which begin at start; extras: its further fields by number.

    A zip64 field that is needed is no further one: the sizes come from it.
    """

    version: int
    flags: int
    method: int
    stamp: tuple[int, int]
    checksum: int
    packed: int
    size: int
    extras: dict[int, bytes]
    start: int


def headers_differ(path: Path, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield what an entry's own header says otherwise than the list of entries; OSError."""
    with path.open("rb") as file:
        for entry, own in _headers(file, entries):
            if isinstance(own, LocalHeader):
                yield from (f"{entry.orig_filename!r} {why}" for why in _differences(file, own, entry))
            else:
                yield f"{entry.orig_filename!r} has no header that can be read before its bytes ({own})"


def beside_headers(path: Path, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield what headers have that pack does not write: another time, fields that unpackers skip.

    What cannot be read is headers_differ's to tell.
    """
    with path.open("rb") as file:
        for entry, own in _headers(file, entries):
            if not isinstance(own, LocalHeader):
                continue
            if own.stamp != _stamp(entry.date_time):
                yield f"{entry.orig_filename!r} has another time in its own header"
            if own.extras:
                yield f"{entry.orig_filename!r} has an extra field in its own header"


def _headers(
    file: BinaryIO, entries: list[zipfile.ZipInfo]
) -> Iterator[tuple[zipfile.ZipInfo, LocalHeader | Exception]]:
    """Yield each entry with its own header, or with the error of one that cannot be read."""
    for entry in entries:
        try:
            yield entry, _read(file, entry.header_offset)
        except (struct.error, ValueError) as error:
            yield entry, error


def _read(file: BinaryIO, offset: int) -> LocalHeader:
    """Read a header. struct.error or ValueError: there is none, or it is cut short."""
    file.seek(offset)
    mark, version, flags, method, time, date, checksum, packed, size, name, extra = FORM.unpack(
        file.read(FORM.size)
    )
    if mark != MARK:
        raise ValueError("it does not begin as one")
    start = file.seek(name, 1) + extra
    extras = _extras(file.read(extra), extra)
    if IN_EXTRA in (packed, size):
        wide = iter(struct.unpack("<QQ", extras.pop(ZIP64, b"")))
        size, packed = (next(wide) if each == IN_EXTRA else each for each in (size, packed))
    return LocalHeader(version, flags, method, (date, time), checksum, packed, size, extras, start)


def _extras(content: bytes, length: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while content:
        number, count = struct.unpack_from("<HH", content)
        if len(content) < 4 + count or number in found:
            raise ValueError("its extra fields are cut short, or one is there twice")
        found[number], content = content[4 : 4 + count], content[4 + count :]
    if 4 * len(found) + sum(map(len, found.values())) != length:
        raise ValueError("the file ends in it")
    return found


def _differences(file: BinaryIO, own: LocalHeader, entry: zipfile.ZipInfo) -> Iterator[str]:
    pairs = {
        "the flags": (own.flags, entry.flag_bits),
        "the method": (own.method, entry.compress_type),
        "the checksum": (own.checksum, entry.CRC),
        "the packed size": (own.packed, entry.compress_size),
        "the size": (own.size, entry.file_size),
    }
    follow = own.flags & AFTERWARDS and entry.flag_bits & AFTERWARDS
    for what, (found, listed) in pairs.items():
        if found != listed and not (follow and found == 0 and what not in ("the flags", "the method")):
            yield f"has {found} for {what} in its own header, and {listed} in the list of entries"
    if own.version > entry.extract_version:
        yield f"needs version {own.version} by its own header, and {entry.extract_version} by the list"
    if follow:
        file.seek(own.start + entry.compress_size)
        after = file.read(FORM.size).removeprefix(DESCRIPTOR)
        sums = entry.CRC, entry.compress_size, entry.file_size
        forms = ["<LQQ"] if max(sums) > IN_EXTRA else ["<LLL", "<LQQ"]
        if not after.startswith(tuple(struct.pack(form, *sums) for form in forms)):
            yield "has other figures behind its bytes than in the list of entries"
    if OTHER_NAME in own.extras:
        yield "has another name in an extra field of its own header"


def _stamp(moment: tuple[int, int, int, int, int, int]) -> tuple[int, int]:
    """Return a date and a time as zip files have them."""
    year, month, day, hour, minute, second = moment
    return (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2
