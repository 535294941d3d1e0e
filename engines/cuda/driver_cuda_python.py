"""A GPU through cuda-python's driver bindings: thin, torch-free, and wheels for every platform."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engines.cuda.driver import Buffer, Gpu
from engines.cuda.graphs import CudaGraphs
from engines.errors import EngineError


@functools.cache
def open_driver(index: int) -> CudaPythonDriver:
    """Open the GPU of that index; ImportError without cuda-python, EngineError without a driver or GPU."""
    from cuda.bindings import driver as cuda

    try:
        _value(cuda, cuda.cuInit(0))
    except RuntimeError as error:  # cuda-python's own for a missing library
        raise EngineError(f"no NVIDIA driver: {error}") from error
    return CudaPythonDriver(_value(cuda, cuda.cuDeviceGet(index)))


class CudaPythonDriver(CudaGraphs):
    """The Driver through cuda-python; the primary context stays retained until the process ends."""

    def __init__(self, device: object) -> None:
        from cuda.bindings import driver as cuda

        super().__init__()
        self._bindings = cuda
        self._context = self._do(cuda.cuDevicePrimaryCtxRetain(device))
        kinds = cuda.CUdevice_attribute
        major = self._do(
            cuda.cuDeviceGetAttribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
        )
        minor = self._do(
            cuda.cuDeviceGetAttribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
        )
        name = self._do(cuda.cuDeviceGetName(256, device)).split(b"\0")[0].decode()
        self.gpu = Gpu(name, (major, minor), self._do(cuda.cuDriverGetVersion()))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the context on this thread while the block runs."""
        self._do(self._bindings.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            self._do(self._bindings.cuCtxPopCurrent())

    def allocate(self, size: int) -> Buffer:
        """Allocate memory on the GPU."""
        return Buffer(int(self._do(self._bindings.cuMemAlloc(size))), size)

    def free(self, buffer: Buffer) -> None:
        """Free memory of `allocate`."""
        self._do(self._bindings.cuMemFree(buffer.address))

    def pin(self, size: int) -> np.ndarray:
        """Allocate page-locked memory (size,) uint8."""
        address = int(self._do(self._bindings.cuMemHostAlloc(size, 0)))
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)

    def unpin(self, array: np.ndarray) -> None:
        """Free page-locked memory of `pin`."""
        self._do(self._bindings.cuMemFreeHost(array.ctypes.data))

    def create_stream(self) -> int:
        """Create a stream, and return its handle."""
        flag = self._bindings.CUstream_flags.CU_STREAM_NON_BLOCKING
        return int(self._do(self._bindings.cuStreamCreate(flag)))

    def destroy_stream(self, stream: int) -> None:
        """Destroy the stream."""
        self._do(self._bindings.cuStreamDestroy(stream))

    def synchronize(self, stream: int) -> None:
        """Wait until all of the stream's work is done."""
        self._do(self._bindings.cuStreamSynchronize(stream))

    def copy_in(self, address: int, array: np.ndarray, stream: int) -> None:
        """Queue a copy to the GPU."""
        copy = self._bindings.cuMemcpyHtoDAsync
        self._do(copy(address, array.ctypes.data, array.nbytes, stream))

    def copy_out(self, array: np.ndarray, address: int, stream: int) -> None:
        """Queue a copy from the GPU."""
        copy = self._bindings.cuMemcpyDtoHAsync
        self._do(copy(array.ctypes.data, address, array.nbytes, stream))

    def _do(self, answer: tuple) -> object:
        return _value(self._bindings, answer)


def _value(cuda: object, answer: tuple) -> object:
    """Return a call's values without its code: None, one value or a tuple. EngineError, MemoryError."""
    code, *values = answer
    if code == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise MemoryError("cuda-python: CUDA_ERROR_OUT_OF_MEMORY")
    if code != cuda.CUresult.CUDA_SUCCESS:
        raise EngineError(f"cuda-python: {code.name}")
    return values[0] if len(values) == 1 else tuple(values)
