"""Engines and places that count what crosses between the host and a device that is none."""

from contextlib import contextmanager

import numpy as np

from engines.backends.torch_backend import TorchEngine
from generators.contract import Generator
from lab.gpu.fake_arrays import FakeGraph, FakePlace


class DriverPlace(FakePlace):
    """A FakePlace on a FakeDriver's GPU and stream: copies are done when the stream is waited for."""

    def __init__(self, driver, context):
        super().__init__()
        self.driver, self.context, self._held = driver, context, {}

    def address(self, array):
        address = super().address(array)
        self._held[address] = array._hidden.reshape(-1).view(np.uint8)
        return address

    def copy(self, to, of, size):
        def bytes_at(address):
            return self._held[address] if address in self._held else self.driver.memory(address)

        target, source = bytes_at(to), bytes_at(of)

        def move():
            target[:size] = source[:size]
        self.driver.queue(move, self.context.stream)

    def do(self, work, given, writes=False):
        if not self.capturing:
            self.wait()  # other work here is done at once
        return super().do(work, given, writes)

    def wait(self):
        with self.context:
            self.driver.synchronize(self.context.stream)

    def graph(self):
        return DriverGraph(self)


class DriverGraph(FakeGraph):
    """A graph of the FakeDriver's, of what engines queue and what is done with arrays."""

    @contextmanager
    def recording(self):
        place, driver, stream = self._place, self._place.driver, self._place.context.stream
        with place.context:
            driver.begin_capture(stream)
        place.recorded = driver.capturing
        try:
            yield
        finally:
            place.recorded = None
            with place.context:
                self._graph = driver.end_capture(stream)

    def launch(self):
        self._place.launches += 1
        with self._place.context:
            self._place.driver.launch(self._graph, self._place.context.stream)


class CountedEngine(TorchEngine):
    """A torch engine on a FakePlace, which counts the host arrays that it is given, and can be recorded."""

    def __call__(self, **arrays):
        place = self.place
        if not place or not place.capturing:
            return super().__call__(**arrays)
        work, place.recorded = place.recorded, None
        assert not any(isinstance(array, np.ndarray) for array in arrays.values())
        found = super().__call__(**arrays)
        made = {name: place.empty(each.shape, each.dtype.name) for name, each in found.items()}
        place.recorded = work

        def again():
            for name, found in TorchEngine.__call__(self, **arrays).items():
                made[name][...] = found
        work.append(again)
        return made

    def _given(self, array):
        if isinstance(array, np.ndarray) and self.place:
            self.place.up[f"to {self.spec.name}"] += array.nbytes
        return super()._given(array)

    def _made(self, output):
        made = super()._made(output)
        if isinstance(made, np.ndarray) and self.place:
            self.place.down["pixels" if made.dtype == np.uint8 else "floats"] += made.nbytes
        return made


def counted_engines(generator: Generator, place: FakePlace | None) -> dict[str, TorchEngine]:
    """Torch engines of a generator's components whose outputs stay in that place."""
    specs = generator.components.items()
    engines = {name: CountedEngine(spec, generator.build(name)) for name, spec in specs}
    for engine in engines.values():
        engine.place = place
    return engines


