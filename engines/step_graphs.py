"""Programs of what is done with a place's arrays in a step, and the CUDA graphs of those that come again.

A program's first run is plain. At the second, what it is given and its numbers get fixed addresses, and it
runs from these in memory of its own, so that all is there when the third run is recorded. From then on what
is given is copied there, the graph is queued as a whole, and what it made is copied out of its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from engines.cuda.context import Layout
from engines.device_arrays import Array, Place
from engines.spec import Engine

GRAPHS = 4  # that are kept: of actions, with and without a second branch, and of steps in between


class Kind(Enum):
    """What an argument refers to: an array from before, a number of the host's, or what a call made."""

    GIVEN, NUMBER, MADE = "given", "number", "made"


class Ref(NamedTuple):
    """A reference to an array or a number of a program, in its list of that kind."""

    kind: Kind
    index: int
    shape: tuple[int, ...]
    dtype: str


class EngineCall:
    """The call of an engine with inputs in its spec's order; it returns outputs in that order."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, *arrays: Array) -> list[Array]:
        """Run the engine."""
        spec = self.engine.spec
        made = self.engine(**{tensor.name: array for tensor, array in zip(spec.inputs, arrays, strict=True)})
        return [made[tensor.name] for tensor in spec.outputs]


class Call(NamedTuple):
    """A call in a program. makes: how many arrays. key: what of it is the same in programs that are alike."""

    function: Callable
    args: tuple
    options: Mapping[str, object]
    makes: int
    key: tuple


class Program(NamedTuple):
    """Calls in order, with what they refer to. kept: which of the arrays that they make are used later."""

    calls: Sequence[Call]
    given: Sequence[Array]
    numbers: Sequence[object]
    kept: tuple[int, ...]

    @property
    def key(self) -> tuple:
        """What is the same in programs that one graph can do; numbers and given arrays may be others."""
        return (*(call.key for call in self.calls), self.kept)

    def run(self, given: Sequence[Array], numbers: Sequence[object]) -> dict[int, Array]:
        """Do it with these arrays and numbers; return what is kept."""
        made: list[Array] = []
        lists = {Kind.GIVEN: given, Kind.NUMBER: numbers, Kind.MADE: made}

        def filled(value: object) -> object:
            if isinstance(value, Ref):
                return lists[value.kind][value.index]
            return type(value)(map(filled, value)) if type(value) in (tuple, list) else value

        for call in self.calls:
            found = call.function(*filled(call.args), **{n: filled(each) for n, each in call.options.items()})
            if call.makes:
                made.extend(found if isinstance(found, list | tuple) else [found])
        return {number: made[number] for number in self.kept}

    @property
    def number_refs(self) -> list[Ref]:
        """The references to its numbers."""
        return [ref for call in self.calls for ref in call.key[1] if ref.kind is Kind.NUMBER]

    @property
    def engines(self) -> list[Engine]:
        """The engines that it calls."""
        return [call.function.engine for call in self.calls if isinstance(call.function, EngineCall)]


class StepGraphs:
    """The graphs of a place's programs, by what these have in common; the last few are kept.

    say: is told why a program cannot be one.
    """

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self._place, self._say = place, say
        self._graphs: dict[tuple, StepGraph] = {}

    def run(self, program: Program) -> dict[int, Array]:
        """Do a program call by call."""
        return program.run(program.given, program.numbers)

    def run_step(self, program: Program) -> dict[int, Array]:
        """Do a program that is a step's, by its graph if there is one, and note that it was seen."""
        key, found = program.key, None
        graph = self._graphs.pop(key, None)
        if graph:
            try:
                found = graph.run(program)
            except (RuntimeError, MemoryError) as error:  # CuPy's and engines' errors are RuntimeErrors
                graph.refuse()
                self._say(f"step_graph: a step is done call by call, for it cannot be recorded ({error})")
        self._graphs[key] = graph or StepGraph(self._place, program)
        if len(self._graphs) > GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return self.run(program) if found is None else found

    def clear(self) -> None:
        """Drop all graphs with their memory."""
        self._graphs.clear()


class StepGraph:
    """The graph of programs that are alike. Arrays given at the same address again are read where they lie.

    refused: it cannot be recorded, and is not tried again.
    """

    def __init__(self, place: Place, program: Program) -> None:
        self._place, self.refused = place, False
        self._moved: set[int] = set()  # what was given at other addresses; at the same ones by chance
        self._begin(program)

    def refuse(self) -> None:
        """Let go of its memory, and do nothing from now on."""
        self.refused = True
        self._memory = self._made = self._given = None

    def _begin(self, program: Program) -> None:
        """Begin with a program that was done without it."""
        self._addresses = self._addresses_of(program)
        self._memory = self._made = self._bound = None

    def run(self, program: Program) -> dict[int, Array] | None:
        """Do a program; None: it was not done. RuntimeError, MemoryError: it cannot be; nothing changed."""
        if self.refused:
            return None
        if self._memory is None:
            self._fix(program)
            self._fill(program)
            with self._memory.own():
                made = program.run(self._given, self._numbers)
        elif not self._fits(program):
            pairs = zip(self._addresses_of(program), self._addresses, strict=True)
            self._moved |= {number for number, (new, old) in enumerate(pairs) if new != old}
            self._begin(program)
            return None
        else:
            self._fill(program)
            if self._made is None:
                with self._memory.recording():
                    self._made = program.run(self._given, self._numbers)
                self._bound = _bound(program)
            self._memory.launch()
            made = self._made
        return {number: array.copy() for number, array in made.items()}

    def _fix(self, program: Program) -> None:
        """Take memory for what is given elsewhere at each step, and for numbers."""
        self._memory = self._place.graph()
        places = zip(program.given, self._addresses_of(program), self._addresses, strict=True)
        self._stays = [new == old and n not in self._moved for n, (_, new, old) in enumerate(places)]
        self._given = [
            array if stays else self._place.empty(array.shape, array.dtype.name)
            for array, stays in zip(program.given, self._stays, strict=True)
        ]
        self._addresses = self._addresses_of(program)
        self._layout = Layout({str(ref.index): (ref.shape, ref.dtype) for ref in program.number_refs})
        self._staging = np.zeros(self._layout.size, np.uint8)
        self._on_device = self._place.empty(self._staging.shape, "uint8")
        self._numbers = [self._layout.array(str(n), self._on_device) for n in range(len(program.numbers))]

    def _fits(self, program: Program) -> bool:
        """Tell whether all that it reads where it lies is still there."""
        pairs = zip(self._addresses_of(program), self._addresses, self._stays, strict=True)
        bound = self._made is None or self._bound == _bound(program)
        return bound and all(new == old for new, old, stays in pairs if stays)

    def _fill(self, program: Program) -> None:
        """Copy what is given and numbers to where they are read."""
        for fixed, array, stays in zip(self._given, program.given, self._stays, strict=True):
            if not stays:
                fixed[...] = array
        for number, value in enumerate(program.numbers):
            np.copyto(self._layout.array(str(number), self._staging), value, casting="same_kind")
        if program.numbers:
            self._on_device[...] = self._place.asarray(self._staging)

    def _addresses_of(self, program: Program) -> list[tuple]:
        return [(self._place.address(each), each.strides) for each in program.given]


def _bound(program: Program) -> list[object]:
    """Return what tells that an engine's memory was moved."""
    return [getattr(engine, "generation", 0) for engine in program.engines]
