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
}


@dataclass(frozen=True)
class Gpu:
    """A GPU as manifests name it; driver is the version of CUDA that its driver runs, 13000 for 13.0."""

    name: str
    capability: tuple[int, int]
    driver: int

    @property
    def sm(self) -> str:
        """The architecture, as sm_89."""
        return "sm_{}{}".format(*self.capability)


@dataclass(frozen=True, eq=False)
class Buffer:
    """A piece of memory on a GPU; owner is the package's own object for it."""

    address: int
    size: int
    owner: object = None


class Driver(Protocol):
    """One GPU. All but `gpu` and `current` want the context to be current on the calling thread.

    Whatever CUDA refuses leaves `current` as a MemoryError or an EngineError.
    """

    gpu: Gpu

    def current(self) -> AbstractContextManager[object]:
        """Make the GPU's primary context current on this thread while the block runs."""
        ...

    def allocate(self, size: int) -> Buffer:
        """Allocate memory on the GPU, aligned to 256 bytes. MemoryError."""
        ...

    def free(self, buffer: Buffer) -> None:
        """Free memory of `allocate`."""
        ...

    def pin(self, size: int) -> np.ndarray:
        """Allocate page-locked memory (size,) uint8, from which copies run asynchronously. MemoryError."""
        ...

    def unpin(self, array: np.ndarray) -> None:
        """Free page-locked memory of `pin`."""
        ...

    def create_stream(self) -> int:
        """Create a stream that does not wait for the default stream, and return its handle."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Destroy the stream."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all of the stream's work is done."""
        ...

    def copy_in(self, address: int, array: np.ndarray, stream: int) -> None:
        """Queue a copy of pinned bytes to an address on the GPU."""
        ...

    def copy_out(self, array: np.ndarray, address: int, stream: int) -> None:
        """Queue a copy of what lies at an address to pinned bytes."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues from here on, instead of running it."""
        ...

    def end_capture(self, stream: int) -> int | None:
        """End the recording, and return its graph to launch; None if the work cannot be a graph."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Queue a graph on a stream."""
        ...

    def free_graph(self, graph: int) -> None:
        """Free the graph."""
        ...


def open_driver(device: str, package: str | None = None) -> Driver:
    """Open the GPU "cuda" or "cuda:<index>" through the given package, or the first one that works.

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
