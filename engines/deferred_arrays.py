"""Arrays of a place that are made when a step ends, so that a step that comes again is one CUDA graph.

The code of a step runs at every step. What it does with arrays and engines is noted, and done at `queue`, or
where the host asks for a number. So that code knows nothing of graphs: numbers that change from step to step
are found where they are used, and steps that do the same are found to be alike (engines/step_graphs.py).
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from engines.device_arrays import Array, Place, on_device
from engines.late_flag import read_later
from engines.step_graphs import Call, EngineCall, Kind, Program, Ref, StepGraphs

METHODS = (
    "astype",
    "mean",
    "sum",
    "all",
    "any",
    "min",
    "max",
    "transpose",
    "reshape",
    "take",
    "copy",
    "repeat",
)
# Functions whose results are arrays of their own; those of others may be views of what they are given.
OWN = {*METHODS, "zeros_like", "ones_like", "full_like", "concatenate", "stack", "where", "clip"}
OWN -= {"transpose", "reshape"}


class DeferredArray(NDArrayOperatorsMixin):
    """An array whose making a DeferringPlace notes; it answers NumPy's functions as CuPy's arrays do.

    held: the place's array, once it is there; else ref says what makes it. is_view: whether it may share the
    memory of another; of_before: that of one that is there.
    """

    def __init__(self, place: DeferringPlace, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.device, self.shape, self.dtype, self.ndim = place, shape, dtype, len(shape)
        self.held: Array | None = None
        self.ref: Ref | None = None
        self.is_view = self.of_before = False

    @property
    def nbytes(self) -> int:
        """The count of its bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def now(self) -> Array:
        """Return the place's array, for which all that was noted is done."""
        if self.held is None:
            self.device.run()
        return self.held

    def get(self) -> np.ndarray:
        """Return the numbers on the host."""
        return self.now().get()

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        """Refuse, as CuPy does."""
        raise TypeError("a device's array does not become NumPy's by itself; use .get()")

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: object, out: tuple = (), **options: object
    ) -> object:
        """Note one of NumPy's ufuncs, as an operator does."""
        if method != "__call__":
            return NotImplemented
        return self.device.note(ufunc, inputs, options | ({"out": out} if out else {}), out)

    def __array_function__(self, function: Callable, types: object, args: tuple, options: Mapping) -> object:
        """Note one of NumPy's other functions."""
        if function is np.asarray:  # of a host array, like this one
            return self.device.asarray(np.asarray(*args, **options))
        return self.device.note(function, args, options)

    def __getattr__(self, name: str) -> Callable:
        if name not in METHODS:
            raise AttributeError(name)
        return lambda *args, **options: self.device.note(_METHODS[name], (self, *args), options)

    def __getitem__(self, index: object) -> DeferredArray:
        parts = index if isinstance(index, tuple) else (index,)
        if self.held is not None and all(isinstance(each, slice | int | None) for each in parts):
            return self.device.hold(self.held[index])  # a view, for which nothing is to be done
        return self.device.note(operator.getitem, (self, index), {})

    def __setitem__(self, index: object, value: object) -> None:
        self.device.note(operator.setitem, (self, index, value), {}, (self,))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[DeferredArray]:
        return (self[place] for place in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.now())

    def __dlpack__(self, **kwargs: object) -> object:
        """Hand the array to another library."""
        return self.now().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where it lies."""
        return self.now().__dlpack_device__()


class DeferringPlace:
    """A Place of DeferredArrays, on top of the place that they are on in the end.

    say: is told why a step cannot be a graph.
    """

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place, self.graphs = place, StepGraphs(place, say)
        self._shapes: dict[tuple, object] = {}  # and dtypes of what calls gave; in a list where they gave one
        self._begin()

    def _begin(self) -> None:
        self._calls: list[Call] = []
        self._given: dict[int, tuple[int, Array]] = {}  # arrays from before with their numbers, by id
        self._numbers: list[object] = []
        self._made: list[weakref.ref[DeferredArray]] = []
        self._alike = True  # whether doing it again would change nothing but what it makes

    @contextmanager
    def running(self) -> Iterator[None]:
        """See Place; what is noted at the end, as after an error, is not done, and graphs end with it."""
        with self.place.running():
            try:
                yield
            finally:
                self._begin()
                self.graphs.clear()

    def asarray(self, array: Array) -> DeferredArray:
        """See Place."""
        return array if isinstance(array, DeferredArray) else self.hold(self.place.asarray(array))

    def wait(self) -> None:
        """See Place."""
        self.run()
        self.place.wait()

    def read_later(self, flag: DeferredArray) -> Callable[[], bool]:
        """See late_flag.py."""
        return read_later(flag.now())

    def hold(self, found: object) -> object:
        """Return a DeferredArray of an array that is there, and anything else as it is."""
        if not on_device(found):
            return found
        made = DeferredArray(self, found.shape, found.dtype)
        made.held = found
        return made

    def note(self, function: Callable, args: tuple, options: Mapping, written: tuple = ()) -> object:
        """Note a call; make it at once as long as it is not known what shapes come of it.

        written: what it writes into. TypeError: a host array of more than one number meets a device's.
        """
        given, refs = [*_arrays_in(args)], []
        weak = next((each.dtype.str for each in given if each.dtype.kind == "f"), "<f8")
        hosts = isinstance(function, EngineCall)
        stored, known = self._taken((args, tuple(options.values())), refs, weak, hosts)
        key = function, tuple(options), known
        if key not in self._shapes:
            return self._learn(key, args, options, written)
        shapes = self._shapes[key]
        made = [DeferredArray(self, *each) for each in (shapes if isinstance(shapes, list) else [shapes])]
        if written:
            self._alike &= not any(each.held is not None or each.of_before for each in written)
            made = []
        own = hosts or isinstance(function, np.ufunc) or function.__name__ in OWN
        for array in made:
            array.ref = Ref(Kind.MADE, len(self._made), array.shape, array.dtype.str)
            array.is_view = not own
            array.of_before = not own and any(each.held is not None or each.of_before for each in given)
            self._made.append(weakref.ref(array))
        options = dict(zip(options, stored[1], strict=True))
        self._calls.append(Call(function, stored[0], options, len(made), (key, tuple(refs))))
        return written[0] if written else made if isinstance(shapes, list) else made[0]

    def _learn(self, key: tuple, args: tuple, options: Mapping, written: tuple) -> object:
        """Make a call at once, and keep what comes of it if that is arrays."""
        found = self.at_once(key[0], args, options)
        arrays = found if isinstance(found, list) else [found]
        if written:
            self._shapes[key] = []
        elif all(isinstance(each, DeferredArray) for each in arrays):
            shapes = [(each.shape, each.dtype) for each in arrays]
            self._shapes[key] = shapes if isinstance(found, list) else shapes[0]
        return written[0] if written else found

    def at_once(self, function: Callable, args: tuple, options: Mapping) -> object:
        """Make a call after all that was noted."""
        self.run()
        found = function(*_now(args), **{name: _now(each) for name, each in options.items()})
        if isinstance(found, list | tuple):
            return [self.hold(each) for each in found]
        return self.hold(found)

    def run(self) -> None:
        """Do what was noted, call by call."""
        self._do(self.graphs.run)

    def queue(self) -> None:
        """Do what was noted of a step, which ends here: by a graph, if the like was done before."""
        self._do(self.graphs.run_step)

    def _do(self, do: Callable[[Program], dict[int, Array]]) -> None:
        kept = {number: array for number, each in enumerate(self._made) if (array := each()) is not None}
        alike = self._alike and not any(array.is_view for array in kept.values())
        given = [array for _, array in self._given.values()]
        program = Program(self._calls, given, self._numbers, tuple(kept))
        self._begin()
        if program.calls:
            for number, array in (do if alike else self.graphs.run)(program).items():
                kept[number].held, kept[number].ref = array, None

    def _taken(self, value: object, refs: list[Ref], weak: str, hosts: bool) -> tuple[object, object]:
        """Return an argument with references to arrays and numbers, and what of it decides about shapes.

        weak: the dtype of Python's floats. hosts: whether host arrays may be among them.
        """
        if isinstance(value, list | tuple):
            pairs = [self._taken(each, refs, weak, hosts) for each in value]
            return type(value)(each for each, _ in pairs), (type(value), *(known for _, known in pairs))
        if isinstance(value, slice):
            return value, (slice, value.start, value.stop, value.step)
        if isinstance(value, DeferredArray):
            refs.append(value.ref if value.held is None else self._from_before(value.held))
        elif isinstance(value, float | np.floating | np.ndarray):
            if np.ndim(value) and not hosts:
                raise TypeError("a host array of more than one number meets a device's; use asarray(like=)")
            dtype = weak if type(value) is float else value.dtype.str
            refs.append(Ref(Kind.NUMBER, len(self._numbers), np.shape(value), dtype))
            self._numbers.append(value)
        else:
            return value, (type(value), value)
        return refs[-1], (type(value), refs[-1].shape, refs[-1].dtype)

    def _from_before(self, array: Array) -> Ref:
        number, _ = self._given.setdefault(id(array), (len(self._given), array))
        return Ref(Kind.GIVEN, number, array.shape, array.dtype.str)


def _arrays_in(value: object) -> Iterator[DeferredArray]:
    if isinstance(value, DeferredArray):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _arrays_in(each)


def _now(value: object) -> object:
    """Return an argument with the place's arrays."""
    if isinstance(value, DeferredArray):
        return value.held
    return type(value)(map(_now, value)) if type(value) in (list, tuple) else value


def _method(name: str) -> Callable:
    def call(array: Array, *args: object, **options: object) -> Array:
        return getattr(array, name)(*args, **options)

    call.__name__ = name
    return call


_METHODS = {name: _method(name) for name in METHODS}
