"""Run several things in turn, so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

Name = TypeVar("Name")
Result = TypeVar("Result")


def interleave(
    runs: Mapping[Name, Callable[[], Result]],
    rounds: int,
    before: Callable[[Name, int], None] = lambda name, number: None,
) -> Iterator[tuple[Name, int, Result]]:
    """Call every run once a round; yield its name, the round's number from 1, and what the call returned.

    Each round begins with the next of the runs, so that none always comes first. before: is called with name
    and number ahead of each run, for those who must know what was running when a process died.
    """
    names = list(runs)
    for number in range(1, rounds + 1):
        first = (number - 1) % max(len(names), 1)
        for name in [*names[first:], *names[:first]]:
            before(name, number)
            yield name, number, runs[name]()


def median_ratio(base: Iterable[float], own: Iterable[float]) -> float:
    """Return how many times faster than the base a run is: the median of the ratios of each round.

    base, own: seconds of each round, equally many, else ValueError.
    """
    return statistics.median(b / o for b, o in zip(base, own, strict=True))
