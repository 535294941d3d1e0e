"""The little of CUDA that an engine needs, behind one Protocol, and the choice of the package that gives it.

Ownership: whoever allocates frees, with the context current, after the stream was synchronized. The primary
context, which torch shares, is retained once for the process; a thread pushes it for as long as it works.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engines.errors import EngineError

# pycuda first: small, torch-free and the project's default. Each file has open_driver(index).
DRIVERS = {
    "pycuda": "engines.cuda.driver_pycuda",
    "cuda-python": "engines.cuda.driver_cuda_python",
    "torch": "engines.cuda.driver_torch",
}


@dataclass(frozen=True)
class Gpu:
    """What an engine's manifest says of the GPU it is for; driver is CUDA's version, as 13000 for 13.0."""

    name: str
    capability: tuple[int, int]
    driver: int

    @property
    def sm(self) -> str:
        """Its architecture, as sm_89."""
        return "sm_{}{}".format(*self.capability)


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory on a GPU; owner is what the package gave for it."""

    address: int
    size: int
    owner: object = None


class Driver(Protocol):
    """One GPU. All but `gpu` and `current` want the context to be current on the calling thread.

    Whatever CUDA refuses leaves `current` as a MemoryError or an EngineError.
    """

    gpu: Gpu

    def current(self) -> AbstractContextManager[object]:
        """The GPU's primary context current on this thread, while inside."""
        ...

    def free_memory(self) -> int:
        """Bytes on the GPU that nobody has taken."""
        ...

    def allocate(self, size: int) -> Buffer:
        """Memory on the GPU, aligned to 256 bytes."""
        ...

    def free(self, buffer: Buffer) -> None:
        """Give it back."""
        ...

    def pin(self, size: int) -> np.ndarray:
        """Page-locked memory (size,) uint8, so that copies need not wait."""
        ...

    def unpin(self, array: np.ndarray) -> None:
        """Give back what `pin` gave."""
        ...

    def create_stream(self) -> int:
        """The handle of a stream that does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Give it back."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all of the stream's work is done."""
        ...

    def copy_in(self, buffer: Buffer, array: np.ndarray, stream: int) -> None:
        """Queue a copy of pinned bytes to the start of the buffer."""
        ...

    def copy_out(self, array: np.ndarray, buffer: Buffer, stream: int) -> None:
        """Queue a copy of the start of the buffer to pinned bytes."""
        ...

    def create_event(self) -> object:
        """An event that can be recorded and timed."""
        ...

    def destroy_event(self, event: object) -> None:
        """Give it back."""
        ...

    def record(self, event: object, stream: int) -> None:
        """Queue the event behind the stream's work so far."""
        ...

    def milliseconds(self, start: object, end: object) -> float:
        """Time on the GPU between two recorded events, after a synchronize."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues from here on, instead of running it."""
        ...

    def end_capture(self, stream: int) -> int | None:
        """The recorded work as a graph that can be launched; None if it cannot be one."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Queue a graph."""
        ...

    def free_graph(self, graph: int) -> None:
        """Give it back."""
        ...


def open_driver(device: str, package: str | None = None) -> Driver:
    """The GPU named "cuda" or "cuda:<index>", through the given package or the first that works.

    EngineError says for each package what is missing.
    """
    kind, _, index = (f"{device}:0" if device == "cuda" else device).partition(":")
    if kind != "cuda" or not index.isdecimal():
        raise EngineError(f"device {device!r} is no GPU; use cuda or cuda:<index>")
    reasons = []
    for name in [package] if package else DRIVERS:
        try:
            return importlib.import_module(DRIVERS[name]).open_driver(int(index))
        except (ImportError, EngineError) as error:
            reasons.append(f"{name}: {str(error).splitlines()[0]}")
    raise EngineError("\n".join([f"{device} cannot be used; a driver and one of these are needed", *reasons]))
