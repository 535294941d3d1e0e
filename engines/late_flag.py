"""Have a device's flag copied to the host behind what is queued now, and read it when more is queued.

Of a CuPy array bool() queues the copy only then, behind all that was queued meanwhile, and waits for it all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.device_arrays import Array, on_device


def read_later(flag: Array) -> Callable[[], bool]:
    """Queue the copy of a flag; return what waits for that copy alone, and tells the flag.

    Where arrays are made later (deferred_arrays.py), what was noted is done now. On the host nothing is
    queued.
    """
    if not on_device(flag):
        return lambda: bool(flag)
    return getattr(flag.device, "read_later", CopiedFlag)(flag)


class CopiedFlag:
    """A flag of CuPy's on its way to pinned memory; called, it is waited for and told."""

    def __init__(self, flag: Array) -> None:
        import cupy

        memory = cupy.cuda.alloc_pinned_memory(flag.nbytes)
        self._pinned = np.ndarray(flag.shape, flag.dtype, memory)
        flag.get(out=self._pinned, blocking=False)
        self._copied = cupy.cuda.get_current_stream().record(cupy.cuda.Event(disable_timing=True))

    def __call__(self) -> bool:
        """Return the flag."""
        self._copied.synchronize()
        return bool(self._pinned)

    def __del__(self) -> None:
        if hasattr(self, "_copied"):  # else its memory would have another owner while it is written
            self._copied.synchronize()
