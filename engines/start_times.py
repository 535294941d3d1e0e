"""Seconds that a component takes to start, by part, and those of its first calls.

hash: of its files. read: of plans, or to build a module with its weights. compile: of a graph that was not
compiled before. load: the rest, as deserialising and copies to the device. There are no calls to warm up: the
first ones of the first video are what is slower on the real path.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

CALLS = 3  # whose seconds are kept; CUDA graphs are captured, and modules compiled, at the second


@dataclass
class _Start:
    """The parts of a component being started. inside: seconds of the parts within the one that runs."""

    seconds: dict[str, float] = field(default_factory=dict)
    inside: float = 0.0


_current: ContextVar[_Start | None] = ContextVar("start", default=None)


@contextmanager
def starting() -> Iterator[dict[str, float]]:
    """Yield the seconds by part of what is started in the block; `load` is what no other part takes."""
    start = _Start()
    before = _current.set(start)
    try:
        with timed("load"):
            yield start.seconds
    finally:
        _current.reset(before)


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Count the block, less the parts in it, for the component that is being started, if one is."""
    start = _current.get()
    if start is None:
        yield
        return
    begun, around, start.inside = time.perf_counter(), start.inside, 0.0
    try:
        yield
    finally:
        spent = time.perf_counter() - begun
        start.seconds[part] = start.seconds.get(part, 0.0) + spent - start.inside
        start.inside = around + spent


def timing_first_calls(call: Callable) -> Callable:
    """Have an engine's __call__ keep the seconds of its first CALLS calls in `first_calls`."""

    @functools.wraps(call)
    def timing(self: object, **arrays: object) -> dict:
        kept = vars(self).setdefault("first_calls", [])
        if len(kept) == CALLS:
            return call(self, **arrays)
        begun = time.perf_counter()
        made = call(self, **arrays)
        kept.append(time.perf_counter() - begun)
        return made

    return timing


def start_seconds(engines: Mapping[str, object]) -> dict[str, dict[str, float | list[float]]]:
    """Return the seconds by component: of the parts of its start, and of its first calls."""
    found = {}
    for name, engine in engines.items():
        parts = {part: round(each, 4) for part, each in getattr(engine, "start_seconds", {}).items()}
        calls = [round(each, 4) for each in getattr(engine, "first_calls", ())]
        found[name] = {**parts, "first_calls": calls}
    return found
