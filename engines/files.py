"""Files that appear whole or not at all, caches shared by processes, and weights mapped into memory."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DRAFT = ".new-"  # what the names of folders with drafts begin with
_PAGEOUT = 21  # madvise: what changed is kept, unlike with DONTNEED, so that any tensor may be given
_NORESERVE = 0x4000  # mmap; Python names it from 3.13


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a draft beside path; it replaces path in one step after the block, or is removed if that raises.

    The folder is made if it is not there. OSError if one cannot write there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=path.parent) as staging:
        draft = Path(staging) / path.name
        yield draft
        sync(draft)  # else a power cut may leave an empty file in the old one's place
        os.replace(draft, path)
        sync(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append a line to a record; after one that was cut off it still is a line of its own.

    Bytes of a file's name that are no text are written as \\udcff, which JSON takes.
    """
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode("utf-8", "backslashreplace"))


def read_cache(path: Path) -> bytes:
    """Read a file that only saves time: its bytes, or none if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclude other processes that lock the same folder while the block runs. OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_file(path: Path) -> mmap.mmap:
    """Map a file's bytes into memory; changes stay in this process and are never written to the file.

    On Linux the file may be larger than the machine's memory, which a copy-on-write mapping may else not be.
    OSError: it cannot be read. ValueError: it is empty.
    """
    with path.open("rb") as file:
        if sys.platform == "linux":
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NORESERVE)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def release_pages(tensor: torch.Tensor) -> None:
    """Free the memory pages that a tensor of a mapped file occupies; its next use reads them again.

    It keeps measured memory low; under pressure the kernel frees them anyway. It needs madvise, else it does
    nothing.
    """
    try:
        advise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):  # no such call here
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    length = (tensor.data_ptr() + tensor.numel() * tensor.element_size() - start) // page * page
    if length > 0:
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), _PAGEOUT)
