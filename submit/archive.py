"""Write the zip file so that equal content gives equal bytes; read one as if it meant harm."""

from __future__ import annotations

import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath

from engines.artifact import file_sha256
from engines.errors import InputError, check_file
from engines.files import atomic_write, sync
from submit.errors import SubmitError
from submit.isolation import View, run

STAMP = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
MODE = stat.S_IFREG | 0o644
UNIX = 3
PACKED_ALREADY = {".whl"}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others stop some graders before they start
LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db", ".git", ".svn", "__pycache__", ".ipynb_checkpoints"}
ENCRYPTED = 0x1
LONGEST, LONGEST_PATH = 255, 2000  # bytes of a file's name, and of its path; Linux takes 4096 of the latter
MB = 1e6
UNZIP_SECONDS = 600.0
DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, UnicodeDecodeError)  # to zipfile


def write_archive(path: Path, files: Mapping[str, Path | bytes]) -> str:
    """Write files by their names in the archive, whole or not at all; return the zip's SHA-256. OSError.

    Names are sorted, times and modes the same for all, and nothing of the machine goes in.
    """
    with atomic_write(path) as draft:
        with zipfile.ZipFile(draft, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, STAMP)
                entry.create_system, entry.external_attr = UNIX, MODE << 16
                stored = PurePosixPath(name).suffix in PACKED_ALREADY
                entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                _write_entry(archive, entry, files[name])
        sync(draft)
    return file_sha256(path)


def _write_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, content: Path | bytes) -> None:
    if isinstance(content, bytes):
        archive.writestr(entry, content)
        return
    entry.file_size = content.stat().st_size  # so that zip64 is used where it must be, and only there
    with content.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def read_entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return what the archive says is in it. InputError if it is no zip file."""
    check_file(path, "zip")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except DAMAGE as error:
        raise InputError(f"{path}: is not a zip file that can be read ({error}); pack it again") from error


def unsafe(entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield why entries must not be unpacked, or not everywhere; their content is not read."""
    seen: dict[str, str] = {}
    names = {entry.orig_filename for entry in entries}
    for entry in entries:
        name = entry.orig_filename
        if any(str(parent) in names for parent in PurePosixPath(name).parents):
            yield f"{name!r} lies in what is a file"
        shown = name if len(name) <= LONGEST else f"{name[:60]}...{name[-20:]}"
        yield from (f"{shown!r} {why}" for why in _wrong_name(name))
        if entry.compress_type not in METHODS:
            yield f"{name!r} is compressed by method {entry.compress_type}; only 0 and 8 (deflate) are safe"
        if entry.flag_bits & ENCRYPTED:
            yield f"{name!r} is encrypted"
        kind = stat.S_IFMT(entry.external_attr >> 16)  # unzip heeds it whatever system is named
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield f"{name!r} is {'a symbolic link' if kind == stat.S_IFLNK else 'no regular file'}"
        if not name.isascii() and not entry.flag_bits & 0x800:
            yield f"{name!r} is not marked as UTF-8"
        folded = unicodedata.normalize("NFC", name).casefold().rstrip("/")
        if folded in seen:
            yield f"{name!r} and {seen[folded]!r} are one file where case does not count"
        seen[folded] = name
    in_order = sorted(entries, key=lambda entry: entry.header_offset)
    for one, other in pairwise(in_order):
        if one.header_offset + 30 + one.compress_size > other.header_offset:
            yield f"{one.orig_filename!r} and {other.orig_filename!r} overlap, as in a zip bomb"


def _wrong_name(name: str) -> Iterator[str]:
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        yield "is an absolute path"
    if ".." in parts:
        yield "leads out of the folder by .."
    if "\\" in name:
        yield "has a backslash"
    if re.search(r"[\x00-\x1f\x7f]", name) or not name:
        yield "has control characters, or is empty"
    lengths = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if max(lengths) > LONGEST or sum(lengths) > LONGEST_PATH:
        yield f"is too long: file systems take {LONGEST} bytes a part, {LONGEST_PATH} are allowed in all"
    if "." in parts or "" in parts[:-1]:
        yield "has empty parts"
    if LITTER & set(parts):
        yield "was left by a tool"


def beside_entries(path: Path, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield where a zip file has bytes that belong to none of its entries, nor to the list of them."""
    with zipfile.ZipFile(path) as archive:
        listed = archive.start_dir
    end = 0
    with path.open("rb") as file:
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if entry.header_offset != end:
                yield f"there are bytes of no entry before {entry.orig_filename}"
            file.seek(entry.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            end = entry.header_offset + 30 + name + extra + entry.compress_size
        if listed != end:
            yield "there are bytes of no entry behind the last one"
        file.seek(-22, 2)
        last = file.read()
    if not last.startswith(b"PK\x05\x06") or not last.endswith(b"\0\0"):
        yield "it has a comment, or bytes behind its end"


def damaged(path: Path) -> Iterator[str]:
    """Yield entries whose bytes are not those that were packed; at most the declared sizes are read."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            try:
                with archive.open(entry) as content:
                    while content.read(1 << 20):
                        pass
            except DAMAGE as error:
                yield f"{entry.orig_filename!r} cannot be unpacked: {error}"


def unpack(path: Path, folder: Path) -> None:
    """Unpack with Python's zipfile, which forgets modes. InputError: damaged; unsafe, and nothing written."""
    _check_safe(path)
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be unpacked ({error})") from error


def unpack_with_unzip(path: Path, folder: Path) -> str:
    """Unpack as Info-ZIP's unzip does, which keeps modes; return what did it. InputError as for unpack.

    Where there is no unzip, zipfile unpacks and the modes are set by hand.
    """
    tool = shutil.which("unzip")
    if tool is None:
        unpack(path, folder)
        for entry in read_entries(path):
            if entry.create_system == UNIX and entry.external_attr >> 16 & 0o777:
                (folder / entry.filename).chmod(entry.external_attr >> 16 & 0o777)
        return "zipfile, with modes set as unzip does"
    _check_safe(path)
    folder.mkdir(parents=True, exist_ok=True)
    command = [tool, "-q", "-o", str(path.resolve()), "-d", str(folder)]
    ended = run(command, {"LANG": "C.UTF-8"}, folder, View([path.resolve()], [folder]), UNZIP_SECONDS)
    if ended.status:
        raise SubmitError(f"unzip ended with status {ended.status}: {ended.said.strip()}")
    return "unzip"


def _check_safe(path: Path) -> None:
    wrong = next(unsafe(read_entries(path)), None)
    if wrong:
        raise InputError(f"{path}: {wrong}; not unpacked")
