"""The processor's cores, shared out to processes; where a system does not tell of them, nothing is done."""

from __future__ import annotations

import os
from collections.abc import Sequence


def shares_of_cores(count: int) -> list[list[int]]:
    """This process's cores in as many equal shares; with fewer cores than shares some get the same."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    size = max(1, len(cores) // count)
    return [[cores[(first + i) % len(cores)] for i in range(size)] for first in range(0, size * count, size)]


def keep_to(cores: Sequence[int]) -> None:
    """Keep this process to these cores, if any: engines that start afterwards take as many threads."""
    if cores:
        os.sched_setaffinity(0, cores)
