"""Engines and places that count what crosses between the host and a device that is none."""

import numpy as np

from engines.backends.torch_backend import TorchEngine
from generators.contract import Generator
from lab.gpu.fake_arrays import FakePlace


class DriverPlace(FakePlace):
    """A FakePlace on a FakeDriver's GPU and stream: copies are done when the stream is waited for."""

    def __init__(self, driver, context):
        super().__init__()
        self._driver, self._context, self._held = driver, context, {}

    def address(self, array):
        address = super().address(array)
        self._held[address] = array._hidden.reshape(-1).view(np.uint8)
        return address

    def copy(self, to, of, size):
        def bytes_at(address):
            return self._held[address] if address in self._held else self._driver.memory(address)

        target, source = bytes_at(to), bytes_at(of)

        def move():
            target[:size] = source[:size]
        self._driver.queue(move, self._context.stream)

    def wait(self):
        with self._context:
            self._driver.synchronize(self._context.stream)


class CountedEngine(TorchEngine):
    """A torch engine on a FakePlace, which counts the host arrays that it is given."""

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


