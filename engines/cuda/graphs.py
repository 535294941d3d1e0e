"""CUDA graphs by the driver's library itself: pycuda has none, and torch's bring their own memory pool."""

from __future__ import annotations

import ctypes
import sys

from engines.errors import EngineError

_OUT_OF_MEMORY = 2
_THREAD_LOCAL = 1  # other threads may allocate meanwhile; only this thread's unsafe calls spoil the capture


class CudaGraphs:
    """The capture and launch of work on a stream. Streams and graphs are plain handles."""

    def __init__(self, library: ctypes.CDLL | None = None) -> None:
        self._cuda = library or driver_library()

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues from here on, instead of running it."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int | None:
        """End the recording, and return its graph to launch; None if the work cannot be a graph."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        ended = self._cuda.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        if not graph.value:
            return None
        try:
            if ended == 0:
                ended = self._cuda.cuGraphInstantiateWithFlags(
                    ctypes.byref(ready), graph, ctypes.c_ulonglong(0)
                )
        finally:
            self._call("cuGraphDestroy", graph)
        return ready.value if ended == 0 else None

    def launch(self, graph: int, stream: int) -> None:
        """Queue a graph on a stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free_graph(self, graph: int) -> None:
        """Free the graph."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, function: str, *arguments: object) -> None:
        code = getattr(self._cuda, function)(*arguments)
        if code == _OUT_OF_MEMORY:
            raise MemoryError(f"{function}: out of GPU memory")
        if code:
            raise EngineError(f"{function} failed: {self._name(code)}")

    def _name(self, code: int) -> str:
        name = ctypes.c_char_p()
        self._cuda.cuGetErrorName(ctypes.c_int(code), ctypes.byref(name))
        return name.value.decode() if name.value else f"CUDA error {code}"


def driver_library() -> ctypes.CDLL:
    """Load the NVIDIA driver's library; EngineError without a driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise EngineError(f"no NVIDIA driver: {error}") from error
