"""A device in NumPy: arrays that hide their numbers and refuse what CuPy's do; what crosses is counted."""

from collections import Counter
from contextlib import contextmanager

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from engines.backends.torch_backend import TorchEngine
from generators.contract import Generator


class FakeArray(NDArrayOperatorsMixin):
    """An array of a FakePlace."""

    def __init__(self, hidden, place):
        assert isinstance(hidden, np.ndarray)
        self._hidden, self.device = hidden, place

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        out = {"out": tuple(map(self._shown, out))} if out else {}
        made = getattr(ufunc, method)(*map(self._shown, inputs), **out, **kwargs)
        return self if out else self._made(made)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.asarray:  # of a host array, like this one
            return self.device.asarray(np.asarray(*args))
        made = function(*self._shown(args), **{name: self._shown(each) for name, each in kwargs.items()})
        return [self._made(each) for each in made] if isinstance(made, list) else self._made(made)

    def _shown(self, value):
        """What of the arguments is hidden; host arrays of more than one number are no arguments."""
        if isinstance(value, FakeArray):
            assert value.device is self.device
            return value._hidden
        if isinstance(value, list | tuple):
            return type(value)(map(self._shown, value))
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return value

    def _made(self, value):
        return FakeArray(np.asarray(value), self.device)

    def get(self):
        self.device.down["floats" if self.dtype.kind == "f" else "others"] += self.nbytes
        return self._hidden.copy()

    def __bool__(self):
        assert self._hidden.ndim == 0
        self.device.down["flags"] += 1
        return bool(self._hidden)

    def __getitem__(self, index):
        return self._made(self._hidden[self._shown(index)])

    def __setitem__(self, index, value):
        self._hidden[self._shown(index)] = self._shown(value)

    def __len__(self):
        return len(self._hidden)

    def __iter__(self):
        return (self[place] for place in range(len(self)))

    def __dlpack__(self, **kwargs):
        hidden = self._hidden if self._hidden.flags.writeable else self._hidden.copy()
        return hidden.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self._hidden.__dlpack_device__()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        if name in ("shape", "dtype", "ndim", "nbytes", "size"):
            return getattr(self._hidden, name)
        assert name in ("astype", "mean", "all", "transpose", "reshape", "take", "copy", "repeat"), name
        return lambda *args, **kwargs: self._made(getattr(self._hidden, name)(*self._shown(args), **kwargs))


class FakePlace:
    """A Place of FakeArrays; up and down count bytes that crossed, down by what they are."""

    def __init__(self):
        self.up, self.down, self.inside = Counter(), Counter(), 0

    @contextmanager
    def running(self):
        self.inside += 1
        yield
        self.inside -= 1

    def asarray(self, array):
        if isinstance(array, FakeArray):
            return array if array._hidden.flags.c_contiguous else array.copy()
        self.up[array.dtype.name] += array.nbytes
        return FakeArray(array.copy(order="C"), self)

    def empty(self, shape, dtype):
        return FakeArray(np.full(shape, 77, dtype), self)

    def from_dlpack(self, tensor):
        return FakeArray(np.from_dlpack(tensor), self)

    def address(self, array):
        assert array._hidden.flags.c_contiguous
        return array._hidden.ctypes.data

    def wait(self):
        pass


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


