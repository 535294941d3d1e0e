"""A GPU through torch, for processes that have torch loaded anyway: memory comes from torch's own pool."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engines.cuda.driver import Buffer, Gpu
from engines.cuda.graphs import StreamObjects
from engines.errors import EngineError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream


@functools.cache
def open_driver(index: int) -> TorchDriver:
    """Open the GPU of that index; ImportError without torch, EngineError if torch sees no such GPU."""
    import torch

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        build = torch.version.cuda or "no CUDA"
        raise EngineError(f"torch {torch.__version__} ({build}) sees no GPU {index}")
    return TorchDriver(index)


class TorchDriver(StreamObjects):
    """The Driver through torch; streams are torch's, kept here by handle."""

    def __init__(self, index: int) -> None:
        import torch

        super().__init__()
        self._torch, self._device = torch, torch.device("cuda", index)
        self._pinned: dict[int, object] = {}
        with self.current():
            torch.zeros(1, device=self._device)  # makes the primary context
            name = torch.cuda.get_device_name(self._device)
            capability = torch.cuda.get_device_capability(self._device)
        self.gpu = Gpu(name, tuple(capability), _driver_version(self._cuda))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU current on this thread, and translate torch's exceptions, while the block runs."""
        try:
            with self._torch.cuda.device(self._device):
                yield
        except self._torch.OutOfMemoryError as error:
            raise MemoryError(f"torch: {str(error).splitlines()[0]}") from error
        except self._torch.AcceleratorError as error:
            text = f"torch: {str(error).splitlines()[0]}"
            raise MemoryError(text) if "out of memory" in text else EngineError(text) from error

    def free_memory(self) -> int:
        """Return the number of free bytes on the GPU."""
        return self._torch.cuda.mem_get_info(self._device)[0]

    def allocate(self, size: int) -> Buffer:
        """Allocate memory on the GPU; torch aligns to 512 bytes."""
        tensor = self._torch.empty(size, dtype=self._torch.uint8, device=self._device)
        return Buffer(tensor.data_ptr(), size, [tensor])

    def free(self, buffer: Buffer) -> None:
        """Return the memory to torch's pool."""
        buffer.owner.clear()

    def pin(self, size: int) -> np.ndarray:
        """Allocate page-locked memory (size,) uint8."""
        tensor = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)
        self._pinned[tensor.data_ptr()] = tensor
        return tensor.numpy()

    def unpin(self, array: np.ndarray) -> None:
        """Free page-locked memory of `pin`."""
        del self._pinned[array.ctypes.data]

    def create_stream(self) -> int:
        """Create a stream, and return its handle; those of torch's pool are given out more than once."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(_NON_BLOCKING))
        self._streams[stream.value] = self._torch.cuda.ExternalStream(stream.value, self._device)
        return stream.value

    def destroy_stream(self, stream: int) -> None:
        """Destroy the stream."""
        super().destroy_stream(stream)
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def copy_in(self, address: int, array: np.ndarray, stream: int) -> None:
        """Queue a copy to the GPU."""
        places = ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", *places, ctypes.c_size_t(array.nbytes), ctypes.c_void_p(stream))

    def copy_out(self, array: np.ndarray, address: int, stream: int) -> None:
        """Queue a copy from the GPU."""
        places = ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address)
        self._call("cuMemcpyDtoHAsync_v2", *places, ctypes.c_size_t(array.nbytes), ctypes.c_void_p(stream))


def _driver_version(library: ctypes.CDLL) -> int:
    """Ask the driver for the newest CUDA that it runs, which torch does not say: 13000 for 13.0."""
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    return version.value
