"""A GPU through pycuda, the default: no torch, and the primary context instead of pycuda.autoinit's own."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engines.cuda.driver import Buffer, Gpu
from engines.cuda.graphs import CudaGraphs
from engines.errors import EngineError

_NON_BLOCKING = 1


@functools.cache
def open_driver(index: int) -> PycudaDriver:
    """Open the GPU of that index; ImportError without pycuda, EngineError without a driver or GPU."""
    import pycuda.driver as cuda

    with _translated(cuda):
        cuda.init()
        return PycudaDriver(cuda.Device(index))


class PycudaDriver(CudaGraphs):
    """The Driver through pycuda, which takes only its own stream objects: they are kept here by handle.

    The context stays retained until Python exits: pycuda's detach leaves a released primary context on the
    thread's stack, and its destructor would detach it as if it were an ordinary one (2026.1, cuda.hpp).
    """

    def __init__(self, device: object) -> None:
        import pycuda.driver as cuda

        super().__init__()
        self._cuda_package = cuda
        self._streams: dict[int, object] = {}
        self._context = device.retain_primary_context()
        atexit.register(self._context.detach)
        self.gpu = Gpu(device.name(), tuple(device.compute_capability()), cuda.get_driver_version())

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the context on this thread, as pycuda's stack is per thread, while the block runs."""
        with _translated(self._cuda_package):
            self._context.push()
            try:
                yield
            finally:
                self._cuda_package.Context.pop()

    def allocate(self, size: int) -> Buffer:
        """Allocate memory on the GPU."""
        allocation = self._cuda_package.mem_alloc(size)
        return Buffer(int(allocation), size, allocation)

    def free(self, buffer: Buffer) -> None:
        """Free memory of `allocate`."""
        buffer.owner.free()

    def pin(self, size: int) -> np.ndarray:
        """Allocate page-locked memory (size,) uint8."""
        return self._cuda_package.pagelocked_empty(size, np.uint8)

    def unpin(self, array: np.ndarray) -> None:
        """Free page-locked memory of `pin`."""
        array.base.free()

    def create_stream(self) -> int:
        """Create a stream, and return its handle."""
        stream = self._cuda_package.Stream(_NON_BLOCKING)
        self._streams[stream.handle] = stream
        return stream.handle

    def destroy_stream(self, stream: int) -> None:
        """Drop the stream, which pycuda destroys with its last reference."""
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        """Wait until all of the stream's work is done."""
        self._streams[stream].synchronize()

    def copy_in(self, address: int, array: np.ndarray, stream: int) -> None:
        """Queue a copy to the GPU."""
        self._cuda_package.memcpy_htod_async(address, array, self._streams[stream])

    def copy_out(self, array: np.ndarray, address: int, stream: int) -> None:
        """Queue a copy from the GPU."""
        self._cuda_package.memcpy_dtoh_async(array, address, self._streams[stream])


@contextmanager
def _translated(cuda: object) -> Iterator[None]:
    """Translate pycuda's exceptions to EngineError and MemoryError."""
    try:
        yield
    except cuda.MemoryError as error:
        raise MemoryError(f"pycuda: {error}") from error
    except cuda.Error as error:
        raise EngineError(f"pycuda: {error}") from error
