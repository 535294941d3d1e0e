"""What the engines of one GPU share in a process: a stream, one thread at a time, memory of single calls."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import numpy as np

from engines.cuda.driver import Buffer, Driver, open_driver
from engines.spare_memory import with_release

ALIGNED = 256  # bytes


class GpuContext:
    """A GPU's stream and the memory of single calls; `with context:` is for the thread that uses them.

    Its engines run one after the other, so they can share memory that holds nothing between calls: the
    largest need counts instead of the sum. open and close go by pairs; the last close frees.

    activations: of the networks. tensors: inputs and outputs on the GPU. pinned: those that pass through the
    host. Each grows when it is reserved and never shrinks; that it has another address tells that it moved.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.stream = 0
        self.activations: Buffer | None = None
        self.tensors: Buffer | None = None
        self.pinned: np.ndarray | None = None
        self.moved = 0  # how often memory on the GPU was
        self.copying = False  # whether copies of pinned memory may be under way
        self._engines = 0
        self._lock = threading.RLock()
        self._inside: list[ExitStack] = []

    def __enter__(self) -> GpuContext:
        self._lock.acquire()
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.enter_context(self.driver.current())
            self._inside.append(stack.pop_all())
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._inside.pop().__exit__(*error)

    def open(self) -> None:
        """Count one more engine, and make the stream with the first."""
        with self:
            if not self._engines:
                self.stream = self.driver.create_stream()
            self._engines += 1

    def close(self) -> None:
        """Count one engine less, and free everything with the last."""
        with self:
            self._engines -= 1
            if self._engines:
                return
            with ExitStack() as stack:
                stack.callback(self.driver.destroy_stream, self.stream)
                for buffer in filter(None, (self.activations, self.tensors)):
                    stack.callback(self.driver.free, buffer)
                if self.pinned is not None:
                    stack.callback(self.driver.unpin, self.pinned)
                self.activations = self.tensors = self.pinned = None

    def reserve(self, activations: int, tensors: int = 0) -> None:
        """Grow the memory on the GPU to at least that many bytes. MemoryError."""
        for name, size in (("activations", activations), ("tensors", tensors)):
            size = max(size, ALIGNED)  # so that there is an address, also for an engine that needs none
            old = getattr(self, name)
            if old is None or old.size < size:
                self.driver.synchronize(self.stream)
                self.moved += 1
                setattr(self, name, None)
                if old is not None:  # before: both at once may not fit
                    self.driver.free(old)
                setattr(self, name, with_release(partial(self.driver.allocate, size)))

    def pin(self, size: int) -> np.ndarray:
        """Return the pinned memory, of at least that many bytes."""
        if self.pinned is None or self.pinned.size < size:
            self.driver.synchronize(self.stream)
            old, self.pinned = self.pinned, None
            if old is not None:
                self.driver.unpin(old)
            self.pinned = self.driver.pin(max(size, ALIGNED))
        return self.pinned


class Layout:
    """Where some arrays lie one behind the other in a piece of memory, each aligned as CUDA's own are.

    arrays: shape and dtype by name. size: bytes of them all.
    """

    def __init__(self, arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        self.size, self._places = 0, {}
        for name, (shape, dtype) in arrays.items():
            dtype = np.dtype(dtype)
            nbytes = int(np.prod(shape)) * dtype.itemsize
            self._places[name] = self.size, nbytes, shape, dtype
            self.size += -(-max(nbytes, 1) // ALIGNED) * ALIGNED

    def offset(self, name: str) -> int:
        """Return the number of bytes before an array."""
        return self._places[name][0]

    def nbytes(self, name: str) -> int:
        """Return the number of bytes of an array."""
        return self._places[name][1]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self._places[name][2]

    def bytes_of(self, name: str, memory: np.ndarray) -> np.ndarray:
        """Return the bytes of an array in host memory of this layout."""
        offset, nbytes, _, _ = self._places[name]
        return memory[offset : offset + nbytes]

    def array(self, name: str, memory: np.ndarray) -> np.ndarray:
        """Return an array in host memory of this layout, a view."""
        _, _, shape, dtype = self._places[name]
        return self.bytes_of(name, memory).view(dtype).reshape(shape)


_CONTEXTS: dict[str, GpuContext] = {}
_OPENING = threading.Lock()


def context_of(device: str) -> GpuContext:
    """Return the process's context on "cuda" or "cuda:<index>"; EngineError if that GPU cannot be used."""
    with _OPENING:
        name = "cuda:0" if device == "cuda" else device
        if name not in _CONTEXTS:
            _CONTEXTS[name] = GpuContext(open_driver(name))
        return _CONTEXTS[name]
