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
            raise EngineError(f"torch: {str(error).splitlines()[0]}") from error

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
        """Create a stream, and return its handle; torch's never wait for the default stream."""
        stream = self._torch.cuda.Stream(self._device)
        self._streams[stream.cuda_stream] = stream
        return stream.cuda_stream

    def copy_in(self, buffer: Buffer, array: np.ndarray, stream: int) -> None:
        """Queue a copy to the GPU."""
        with self._torch.cuda.stream(self._streams[stream]):
            buffer.owner[0][: array.nbytes].copy_(self._torch.from_numpy(array), non_blocking=True)

    def copy_out(self, array: np.ndarray, buffer: Buffer, stream: int) -> None:
        """Queue a copy from the GPU."""
        with self._torch.cuda.stream(self._streams[stream]):
            self._torch.from_numpy(array).copy_(buffer.owner[0][: array.nbytes], non_blocking=True)

    def create_event(self) -> object:
        """Create an event that can be timed."""
        return self._torch.cuda.Event(enable_timing=True)

    def milliseconds(self, start: object, end: object) -> float:
        """Measure the time on the GPU between two events."""
        return start.elapsed_time(end)


def _driver_version(library: ctypes.CDLL) -> int:
    """Ask the driver for the newest CUDA that it runs, which torch does not say: 13000 for 13.0."""
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    return version.value
