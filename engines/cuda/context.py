"""What the engines of one GPU share in a process: a stream, one thread at a time, and activation memory."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from engines.cuda.driver import Buffer, Driver, open_driver


class GpuContext:
    """A GPU's stream and activation memory; `with context:` is for the thread that uses them.

    Its engines run one after the other, so they can share memory that holds nothing between calls: the
    largest need counts instead of the sum. open and close go by pairs; the last close frees.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.stream = 0
        self.activations: Buffer | None = None
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
                if self.activations:
                    stack.callback(self.driver.free, self.activations)
                self.activations = None

    def reserve(self, size: int) -> None:
        """Grow the activation memory to at least that many bytes; its address tells engines that it moved."""
        size = max(size, 256)  # so that there is an address, also for an engine that needs none
        if self.activations is None or self.activations.size < size:
            self.driver.synchronize(self.stream)
            old, self.activations = self.activations, None
            self.activations = _replaced(self.driver, old, size)


@dataclass
class IOBuffer:
    """The memory of one input or output, on the GPU and pinned on the host; it grows and never shrinks."""

    driver: Driver
    device: Buffer | None = None
    host: np.ndarray | None = None
    shape: tuple[int, ...] = ()
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))

    def fit(self, shape: tuple[int, ...], dtype: str) -> None:
        """Make room for an array of that shape. The stream must be idle."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        size = self.nbytes
        if self.host is None or self.host.size < size:
            old, self.host = self.host, None
            if old is not None:
                self.driver.unpin(old)
            self.host = self.driver.pin(size)
        if self.device is None or self.device.size < size:
            old, self.device = self.device, None
            self.device = _replaced(self.driver, old, size)

    @property
    def nbytes(self) -> int:
        """The size in bytes of the array that it holds."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def array(self) -> np.ndarray:
        """The array that it holds, a view of the pinned memory."""
        return self.host[: self.nbytes].view(self.dtype).reshape(self.shape)

    def copy_in(self, stream: int) -> None:
        """Queue a copy of the array to the GPU."""
        self.driver.copy_in(self.device, self.host[: self.nbytes], stream)

    def copy_out(self, stream: int) -> None:
        """Queue a copy of the array from the GPU."""
        self.driver.copy_out(self.host[: self.nbytes], self.device, stream)

    def free(self) -> None:
        """Free the GPU's memory and the pinned memory."""
        device, host, self.device, self.host = self.device, self.host, None, None
        with ExitStack() as stack:
            if device is not None:
                stack.callback(self.driver.free, device)
            if host is not None:
                stack.callback(self.driver.unpin, host)


_CONTEXTS: dict[str, GpuContext] = {}
_OPENING = threading.Lock()


def context_of(device: str) -> GpuContext:
    """Return the process's context on "cuda" or "cuda:<index>"; EngineError if that GPU cannot be used."""
    with _OPENING:
        name = "cuda:0" if device == "cuda" else device
        if name not in _CONTEXTS:
            _CONTEXTS[name] = GpuContext(open_driver(name))
        return _CONTEXTS[name]


def _replaced(driver: Driver, old: Buffer | None, size: int) -> Buffer:
    """Free a buffer, then allocate a larger one: both at once may not fit."""
    if old is not None:
        driver.free(old)
    return driver.allocate(size)
