"""A device in NumPy: arrays that hide their numbers and refuse what CuPy's do; what crosses is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

MEMBERS = ("shape", "dtype", "ndim", "nbytes", "size", "strides")
METHODS = ("astype", "mean", "all", "transpose", "reshape", "take", "copy", "repeat", "view")


class FakeArray(NDArrayOperatorsMixin):
    """An array of a FakePlace. TypeError: it would meet a host array, or become one unasked."""

    def __init__(self, hidden: np.ndarray, place: FakePlace) -> None:
        self._hidden, self.device = hidden, place

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        """Refuse, as CuPy does."""
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: object, out: tuple = (), **kwargs: object
    ) -> FakeArray:
        """Compute one of NumPy's ufuncs, as an operator does."""
        into = {"out": tuple(map(self._shown, out))} if out else {}
        given = [*map(self._shown, inputs)]
        made = self.device.do(lambda: getattr(ufunc, method)(*given, **into, **kwargs), given, bool(out))
        return self if out else self._made(made)

    def __array_function__(
        self, function: Callable, types: Sequence, args: tuple, kwargs: Mapping
    ) -> FakeArray | list[FakeArray]:
        """Compute one of NumPy's other functions."""
        if function is np.asarray:  # of a host array, like this one
            return self.device.asarray(np.asarray(*args))
        given, named = self._shown(args), {name: self._shown(each) for name, each in kwargs.items()}
        made = self.device.do(lambda: function(*given, **named), given)
        return [self._made(each) for each in made] if isinstance(made, list) else self._made(made)

    def get(self) -> np.ndarray:
        """Return the numbers on the host."""
        self.device.refuse_recorded("a copy to the host")
        self.device.down["floats" if self.dtype.kind == "f" else "others"] += self.nbytes
        return self._hidden.copy()

    def __bool__(self) -> bool:
        self.device.refuse_recorded("a flag that the host reads")
        self.device.down["flags"] += 1
        return bool(self._hidden)

    def __getitem__(self, index: object) -> FakeArray:
        hidden, index = self._hidden, self._shown(index)
        return self._made(self.device.do(lambda: hidden[index], [hidden]))

    def __setitem__(self, index: object, value: object) -> None:
        hidden, index, value = self._hidden, self._shown(index), self._shown(value)
        self.device.do(lambda: hidden.__setitem__(index, value), [], True)

    def __len__(self) -> int:
        return len(self._hidden)

    def __iter__(self) -> Iterator[FakeArray]:
        return (self[place] for place in range(len(self)))

    def __dlpack__(self, **kwargs: object) -> object:
        """Hand the array to another library."""
        hidden = self._hidden if self._hidden.flags.writeable else self._hidden.copy()
        return hidden.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say that it lies in the processor's memory."""
        return self._hidden.__dlpack_device__()

    def __getattr__(self, name: str) -> object:
        if name in MEMBERS:
            return getattr(self._hidden, name)
        if name not in METHODS:
            raise AttributeError(name)

        def call(*args: object, **kwargs: object) -> FakeArray:
            hidden, given = self._hidden, self._shown(args)
            return self._made(self.device.do(lambda: getattr(hidden, name)(*given, **kwargs), [hidden]))

        return call

    def _shown(self, value: object) -> object:
        """Return what is hidden of arguments; a host array of more than one number is no argument."""
        if isinstance(value, FakeArray):
            return value._hidden
        if isinstance(value, list | tuple):
            return type(value)(map(self._shown, value))
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return value

    def _made(self, value: object) -> FakeArray:
        return FakeArray(np.asarray(value), self.device)


class FakePlace:
    """A Place of FakeArrays. up, down: what has crossed to it and from it, in bytes by kind, and flags.

    recorded: while a graph is recorded, the work of it, which is not done then. launches: of graphs.
    """

    def __init__(self) -> None:
        self.up, self.down, self.launches = Counter(), Counter(), 0
        self.recorded: list[Callable[[], object]] | None = None

    @property
    def capturing(self) -> bool:
        """Whether work is recorded."""
        return self.recorded is not None

    def graph(self) -> FakeGraph:
        """See Place."""
        return FakeGraph(self)

    def do(self, work: Callable, given: Sequence, writes: bool = False) -> object:
        """Do work on the device, or record it: then what it makes is there but not its numbers.

        given: what results may be views of, which are no work. writes: into an array that is there.
        """
        if not self.capturing:
            return work()
        if writes:
            self.recorded.append(work)
            return None
        made = work()
        parts = made if isinstance(made, list) else [made]
        if not any(np.may_share_memory(parts[0], each) for each in _arrays_of(given)):
            made = [np.array(each) for each in parts] if isinstance(made, list) else np.array(made)
            for part in made if isinstance(made, list) else [made]:
                part.fill(77)
            self.recorded.append(lambda: _write(made, work()))
        return made

    def refuse_recorded(self, what: str) -> None:
        """Raise RuntimeError, as CUDA does, for what the host waits for while a graph is recorded."""
        if self.capturing:
            raise RuntimeError(f"{what}: operation not permitted when stream is capturing")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Do nothing."""
        yield

    def asarray(self, array: np.ndarray | FakeArray) -> FakeArray:
        """See Place."""
        if isinstance(array, FakeArray):
            return array if array._hidden.flags.c_contiguous else array.copy()
        self.refuse_recorded("a copy from the host")
        self.up[array.dtype.name] += array.nbytes
        return FakeArray(array.copy(order="C"), self)

    def empty(self, shape: tuple[int, ...], dtype: str) -> FakeArray:
        """See Place."""
        return FakeArray(np.full(shape, 77, dtype), self)

    def from_dlpack(self, tensor: object) -> FakeArray:
        """See Place."""
        return FakeArray(np.from_dlpack(tensor), self)

    def address(self, array: FakeArray) -> int:
        """See Place."""
        return array._hidden.ctypes.data

    def read_later(self, flag: FakeArray) -> Callable[[], bool]:
        """See engines/late_flag.py."""
        self.refuse_recorded("a flag that the host reads")
        self.down["flags"] += 1
        found = bool(flag._hidden)
        return lambda: found

    def wait(self) -> None:
        """Do nothing: all is done at once."""
        self.refuse_recorded("a wait")


class FakeGraph:
    """Recorded work of a FakePlace, which is done in the same memory at every launch."""

    def __init__(self, place: FakePlace) -> None:
        self._place, self._work = place, []

    @contextmanager
    def own(self) -> Iterator[None]:
        """Do nothing: all arrays have memory of their own."""
        yield

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is done in the block."""
        self._place.recorded = self._work
        try:
            yield
        finally:
            self._place.recorded = None

    def launch(self) -> None:
        """Do the work."""
        self._place.launches += 1
        for work in self._work:
            work()


def _arrays_of(value: object) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _arrays_of(each)


def _write(to: np.ndarray | list[np.ndarray], made: np.ndarray | list[np.ndarray]) -> None:
    for into, part in zip(
        *((each if isinstance(each, list) else [each]) for each in (to, made)), strict=True
    ):
        np.copyto(into, part)
