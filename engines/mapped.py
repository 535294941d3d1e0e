"""Files as memory, which is given back before the kernel asks for it."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PAGEOUT = 21  # madvise: what changed is kept, unlike with DONTNEED, so that any tensor may be given
_NORESERVE = 0x4000  # mmap; Python names it from 3.13


def map_file(path: Path) -> mmap.mmap:
    """A file's bytes, to which nothing is ever written: what is changed here stays here.

    On Linux the file may be larger than the machine's memory, which a copy-on-write mapping may else not be.
    OSError: it cannot be read. ValueError: it is empty.
    """
    with path.open("rb") as file:
        if sys.platform == "linux":
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NORESERVE)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def give_back(tensor: torch.Tensor) -> None:
    """Free the pages that a tensor of a mapped file occupies; they are read again when they are used again.

    Only a matter of measured memory: under pressure the kernel does the same. Nothing where it cannot.
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
