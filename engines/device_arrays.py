"""Arrays that stay on a device between the calls of engines, and the few ways between it and the host.

They are CuPy's, which answer NumPy's functions and operators (NEP 13 and 18): code that samples a clip is
written for NumPy, and runs on whatever arrays come. What they refuse is to meet a host array of more than one
number, or to become one unasked. On a processor all arrays are NumPy's, and nothing here does anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import Protocol

import numpy as np

from engines.spare_memory import with_release

Array = np.ndarray  # or a device's, which has the same members
INSTALL = 'pip install "cupy-cuda13x[ctk]" (or "cupy-cuda12x[ctk]", by nvidia-smi\'s CUDA version)'
KEPT = 256  # small arrays that are kept on a device


class Place(Protocol):
    """A device that arrays stay on, and the stream in whose order all work of a run is done there.

    capturing: whether work is recorded now, see `graph`, so that nothing may be waited for or be launched.
    """

    capturing: bool

    def running(self) -> AbstractContextManager[object]:
        """Have this thread's work queued on the place's stream while the block runs."""
        ...

    def asarray(self, array: Array) -> Array:
        """Return the array on the device with its numbers in order: a host array is copied there."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array with arbitrary numbers."""
        ...

    def from_dlpack(self, tensor: object) -> Array:
        """Return another library's array on the device, without a copy."""
        ...

    def address(self, array: Array) -> int:
        """Return where the numbers of a contiguous array begin."""
        ...

    def copy(self, to: int, of: int, size: int) -> None:
        """Queue a copy of `size` bytes from one address on the device to another."""
        ...

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        ...

    def graph(self) -> StepMemory:
        """Make what records work, with memory for what is made in it."""
        ...


class StepMemory(Protocol):
    """Memory that a graph has to itself, and the graph once it is recorded."""

    def own(self) -> AbstractContextManager[object]:
        """Have this thread make arrays in the graph's memory while the block runs."""
        ...

    def recording(self) -> AbstractContextManager[object]:
        """Record what this thread queues in the block, instead of doing it. RuntimeError: it cannot be."""
        ...

    def launch(self) -> None:
        """Queue what was recorded."""
        ...


class CupyPlace:
    """The Place of CuPy's arrays on "cuda" or "cuda:<index>".

    stream: the handle of a stream that engines have; None: one is made. ImportError without CuPy;
    RuntimeError where it cannot compile and run a kernel, as a wheel without NVRTC (its extra, ctk) cannot.
    """

    capturing = False

    def __init__(self, device: str, stream: int | None = None) -> None:
        import cupy

        self._cupy, index = cupy, int(device.partition(":")[2] or 0)
        self._device = cupy.cuda.Device(index)
        with self._device:
            made = cupy.cuda.ExternalStream(stream, index) if stream else cupy.cuda.Stream(non_blocking=True)
        self._stream, self._index = made, index
        try:
            with self._device, made:
                (cupy.zeros(1) + 1).get()  # now, and not in mid-video
        except cupy.cuda.compiler.CompileException as error:  # CuPy's other errors are RuntimeErrors
            raise RuntimeError(f"it cannot compile a kernel: {error}") from error

    def running(self) -> AbstractContextManager[object]:
        """See Place; torch's work goes the same way where torch is loaded."""
        stack = ExitStack()
        stack.enter_context(self._device)
        stack.enter_context(self._stream)
        torch = _torch_on_gpu()
        if torch:
            stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(self._stream.ptr, self._index)))
        return stack

    def asarray(self, array: Array) -> Array:
        """See Place."""
        # ascontiguousarray takes no host arrays
        return self._allocated(lambda: self._cupy.asarray(array, order="C"))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """See Place."""
        return self._allocated(lambda: self._cupy.empty(shape, dtype))

    def _allocated(self, make: Callable[[], Array]) -> Array:
        return make() if self.capturing else with_release(make)

    def from_dlpack(self, tensor: object) -> Array:
        """See Place."""
        return self._cupy.from_dlpack(tensor)

    def address(self, array: Array) -> int:
        """See Place."""
        return array.data.ptr

    def copy(self, to: int, of: int, size: int) -> None:
        """See Place."""
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(to, of, size, runtime.memcpyDeviceToDevice, self._stream.ptr)

    def wait(self) -> None:
        """See Place."""
        self._stream.synchronize()

    def graph(self) -> CupyGraph:
        """See Place."""
        return CupyGraph(self, self._cupy, self._stream)


class CupyGraph:
    """The StepMemory of a CupyPlace: a pool of CuPy's, one of torch's where it is loaded, and a graph.

    Recording goes by CuPy's default, relaxed, in which pools may grow meanwhile.
    """

    def __init__(self, place: CupyPlace, cupy: ModuleType, stream: object) -> None:
        self._place, self._cupy, self._stream, self._torch = place, cupy, stream, _torch_on_gpu()
        self._pool = cupy.cuda.MemoryPool()
        self._torch_pool = self._torch.cuda.MemPool() if self._torch else None

    def own(self) -> AbstractContextManager[object]:
        """See StepMemory."""
        stack = ExitStack()
        stack.enter_context(self._cupy.cuda.using_allocator(self._pool.malloc))
        if self._torch:
            stack.enter_context(self._torch.cuda.use_mem_pool(self._torch_pool))
        return stack

    @contextmanager
    def recording(self) -> Iterator[None]:
        """See StepMemory."""
        with self.own():
            self._stream.begin_capture()
            self._place.capturing = True
            try:
                yield
            finally:
                self._place.capturing = False
                self._graph = self._stream.end_capture()

    def launch(self) -> None:
        """See StepMemory."""
        self._graph.launch(self._stream)


def _torch_on_gpu() -> ModuleType | None:
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() else None


def place_for(engines: Mapping[str, object], device: str, say: Callable[[str], None]) -> Place | None:
    """Open the place for a run of these engines, and tell them; None where arrays pass through the host.

    That is on a processor, with engines that have no `place`, and without CuPy, of which the user is told.
    """
    if not device.startswith("cuda") or not all(hasattr(engine, "place") for engine in engines.values()):
        return None
    streams = {engine.stream for engine in engines.values() if getattr(engine, "stream", None)}
    try:
        place = CupyPlace(device, *streams)
    except (ImportError, RuntimeError) as error:  # CuPy's own errors are RuntimeErrors
        said = str(error).partition("\n")[0]
        say(f"arrays pass through the host at every call, as CuPy does not run ({said}): {INSTALL}")
        return None
    for engine in engines.values():
        engine.place = place
    return place


def place_of(engines: Mapping[str, object]) -> Place | None:
    """Return the place where the outputs of these engines stay, which is the same for all; None: the host."""
    return next((engine.place for engine in engines.values() if getattr(engine, "place", None)), None)


def queue_step(array: Array) -> None:
    """Have all of a step done that makes these arrays, where arrays are made later (deferred_arrays.py)."""
    if hasattr(getattr(array, "device", None), "queue"):
        array.device.queue()


def on_device(array: object) -> bool:
    """Tell whether it is a device's array: one that answers NumPy's functions and is not NumPy's."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__array_function__")


def on_host(array: Array) -> np.ndarray:
    """Return the array on the host, for which work on the device is waited for."""
    return array.get() if on_device(array) else array


_kept: dict[tuple, Array] = {}


def constant(array: np.ndarray, like: Array) -> Array:
    """Return a small host array where `like` is; on a device it is kept, as it is asked for at every step."""
    if not on_device(like):
        return array
    key = type(like), str(like.device), array.dtype.str, array.shape, array.tobytes()
    if key not in _kept:
        if len(_kept) >= KEPT:
            _kept.clear()
        _kept[key] = np.asarray(array, like=like)
    return _kept[key]


def contiguous(array: Array) -> Array:
    """Return a host array with its numbers in order, so that taking frames copies no others; else itself."""
    # ascontiguousarray makes an array of one dim of a number that has none
    return array if on_device(array) else np.asarray(array, order="C")


def take_frames(array: Array, indices: np.ndarray, axis: int) -> Array:
    """Return those frames, as NumPy's take does; on a device a run of frames is a view, not a copy.

    array: may also be one that has `take` alone.
    """
    if not on_device(array):
        return array.take(indices, axis)
    parts = [array[(slice(None),) * axis + (run,)] for run in runs(indices)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def runs(indices: np.ndarray) -> list[slice]:
    """Cut indices into runs that count up by one."""
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(indices, cuts)]
