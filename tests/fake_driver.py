"""A GPU in NumPy that counts what is alive, and of which any call can be told to fail.

It notices what would be silent corruption on a real one: memory used after it was freed, outputs read before
the stream was waited for, calls without the context.
"""

import threading
from contextlib import contextmanager

import numpy as np

from engines.cuda.driver import Buffer, Gpu


class Faults:
    """Counts calls by name; the call of number `at` fails, with a MemoryError if the driver makes it.

    at: may also be several numbers.
    """

    def __init__(self, at=None):
        self.at, self.calls = at, []

    def hit(self, name):
        self.calls.append(name)
        number = len(self.calls) - 1
        return number in self.at if isinstance(self.at, range) else number == self.at


class FakeDriver:
    """A GPU whose stream runs when it is synchronized."""

    def __init__(self, faults=None, error=MemoryError):
        self.faults, self.error = faults or Faults(), error
        self.gpu = Gpu("NVIDIA Fake 4090", (8, 9), 13000)
        self.alive: dict[int, object] = {}  # whatever was given and not taken back, by handle
        self.threads: dict[int, int] = {}  # contexts pushed, by thread
        self.capturing = None
        self._queue, self._next = [], 4096

    @contextmanager
    def current(self):
        me = threading.get_ident()
        self.threads[me] = self.threads.get(me, 0) + 1
        try:
            yield
        finally:
            self.threads[me] -= 1

    def allocate(self, size):
        self._called("allocate")
        return Buffer(self._give(np.zeros(size, np.uint8)), size)

    def free(self, buffer):
        self._take(buffer.address, "free")

    def pin(self, size):
        self._called("pin")
        array = np.zeros(size, np.uint8)
        self.alive[id(array)] = array
        return array

    def unpin(self, array):
        self._take(id(array), "unpin")

    def create_stream(self):
        self._called("create_stream")
        return self._give("stream")

    def destroy_stream(self, stream):
        assert not self._queue, "the stream still had work"
        self._take(stream, "destroy_stream")

    def synchronize(self, stream):
        assert self.capturing is None, "a capture is spoilt by a wait"
        work, self._queue = self._queue, []
        self._called("synchronize")
        assert stream in self.alive
        for piece in work:
            piece()

    def copy_in(self, address, array, stream):
        self._called("copy_in")
        self.queue(lambda: self._copy(self.memory(address), array), stream)

    def copy_out(self, array, address, stream):
        self._called("copy_out")
        self.queue(lambda: self._copy(array, self.memory(address)), stream)

    def memory(self, address):
        """The bytes from an address on, to the end of the buffer that it lies in."""
        for begin, thing in self.alive.items():
            if isinstance(thing, np.ndarray) and begin <= address < begin + len(thing):
                return thing[address - begin :]
        raise AssertionError(f"{address} lies in no memory")

    def begin_capture(self, stream):
        assert self.capturing is None, "a capture within another"
        self._called("begin_capture")
        self.capturing = []

    def end_capture(self, stream):
        work, self.capturing = self.capturing, None
        self._called("end_capture")
        return self._give(work) if work else None

    def launch(self, graph, stream):
        assert self.capturing is None, "a graph within another"
        self._called("launch")
        for piece in self.alive[graph]:
            self.queue(piece, stream)

    def free_graph(self, graph):
        self._take(graph, "free_graph")

    def queue(self, piece, stream):
        assert stream in self.alive
        (self._queue if self.capturing is None else self.capturing).append(piece)

    @staticmethod
    def _copy(to, source):
        size = min(len(to), len(source))
        to[:size] = source[:size]

    def _give(self, thing):
        handle, self._next = self._next, self._next + 4096
        if isinstance(thing, np.ndarray):
            self._next += -(-len(thing) // 4096) * 4096
        self.alive[handle] = thing
        return handle

    def _take(self, handle, name):
        del self.alive[handle]  # also if the call fails: there is nothing more that one could do
        self._called(name)

    def _called(self, name):
        assert self.threads.get(threading.get_ident()), f"{name} without the context"
        if self.faults.hit(name):
            raise self.error(f"{name} was told to fail")
