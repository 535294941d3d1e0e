"""Give back the GPU memory that torch and CuPy keep for later, as none can have what another keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Made = TypeVar("Made")


def release() -> None:
    """Give back what the libraries that are loaded keep and do not use, on the current GPU."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if cupy and cupy.cuda.is_available():
        cupy.get_default_memory_pool().free_all_blocks()


def with_release(make: Callable[[], Made]) -> Made:
    """Return make(); where memory runs out, it is called once more after a release. MemoryError.

    Not for what is recorded as a graph, in which nothing may be freed.
    """
    with suppress(MemoryError):
        return make()
    release()  # out of the handler, for the error holds what the failed work had in memory
    return make()
