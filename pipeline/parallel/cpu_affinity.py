"""Divide the CPU's cores among processes; nothing is done on systems without sched_setaffinity."""

from __future__ import annotations

import os
from collections.abc import Sequence


def shares_of_cores(count: int) -> list[list[int]]:
    """Return this process's cores in `count` equal shares; with fewer cores than shares some share a core."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    size = max(1, len(cores) // count)
    return [[cores[(first + i) % len(cores)] for i in range(size)] for first in range(0, size * count, size)]


def pin_to(cores: Sequence[int]) -> None:
    """Pin this process to these cores, if any: engines that start afterwards use as many threads."""
    if cores:
        os.sched_setaffinity(0, cores)
