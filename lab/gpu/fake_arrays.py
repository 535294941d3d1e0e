"""A device in NumPy: arrays that hide their numbers and refuse what CuPy's do; what crosses is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

MEMBERS = ("shape", "dtype", "ndim", "nbytes", "size")
METHODS = ("astype", "mean", "all", "transpose", "reshape", "take", "copy", "repeat")


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
        made = getattr(ufunc, method)(*map(self._shown, inputs), **into, **kwargs)
        return self if out else self._made(made)

    def __array_function__(
        self, function: Callable, types: Sequence, args: tuple, kwargs: Mapping
    ) -> FakeArray | list[FakeArray]:
        """Compute one of NumPy's other functions."""
        if function is np.asarray:  # of a host array, like this one
            return self.device.asarray(np.asarray(*args))
        made = function(*self._shown(args), **{name: self._shown(each) for name, each in kwargs.items()})
        return [self._made(each) for each in made] if isinstance(made, list) else self._made(made)

    def get(self) -> np.ndarray:
        """Return the numbers on the host."""
        self.device.down["floats" if self.dtype.kind == "f" else "others"] += self.nbytes
        return self._hidden.copy()

    def __bool__(self) -> bool:
        self.device.down["flags"] += 1
        return bool(self._hidden)

    def __getitem__(self, index: object) -> FakeArray:
        return self._made(self._hidden[self._shown(index)])

    def __setitem__(self, index: object, value: object) -> None:
        self._hidden[self._shown(index)] = self._shown(value)

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
        return lambda *args, **kwargs: self._made(getattr(self._hidden, name)(*self._shown(args), **kwargs))

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
    """A Place of FakeArrays. up, down: what has crossed to it and from it, in bytes by kind, and flags."""

    def __init__(self) -> None:
        self.up, self.down = Counter(), Counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Do nothing."""
        yield

    def asarray(self, array: np.ndarray | FakeArray) -> FakeArray:
        """See Place."""
        if isinstance(array, FakeArray):
            return array if array._hidden.flags.c_contiguous else array.copy()
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

    def wait(self) -> None:
        """Do nothing: all is done at once."""
