"""End a cluster's workers that are stopped (SIGSTOP): Ray waits for them without end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import ModuleType

from pipeline.parallel.worker_process import is_stopped

LOOK = 5.0  # seconds between looks


class Watch:
    """A look at workers' processes, by a task on the machine of each, which takes no core of it.

    seconds: that a worker may stay stopped.
    """

    def __init__(self, ray: ModuleType, seconds: float) -> None:
        self._ray, self._seconds, self._last = ray, seconds, time.monotonic()
        self._looks: dict[str, object] = {}
        self._end = ray.remote(end_stopped)

    def look(self, processes: Iterable[tuple[str, int]]) -> None:
        """Look at processes, by Ray's name of their machine, if the last look was LOOK seconds ago."""
        if time.monotonic() - self._last < LOOK:
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._last, by_node = time.monotonic(), {}
        for node, pid in processes:
            by_node.setdefault(node, []).append(pid)
        under_way = set(self._ray.wait([*self._looks.values()], timeout=0)[1]) if self._looks else set()
        self._looks = {node: look for node, look in self._looks.items() if look in under_way}
        for node in by_node.keys() - self._looks.keys():
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            task = self._end.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            self._looks[node] = task.remote(by_node[node], self._seconds)


def end_stopped(pids: Sequence[int], seconds: float) -> None:
    """Kill those of these processes that are stopped, and stay so for that many seconds."""
    until, pids = time.monotonic() + seconds, [pid for pid in pids if is_stopped(pid)]
    while pids and time.monotonic() < until:
        time.sleep(min(seconds, 0.5))
        pids = [pid for pid in pids if is_stopped(pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
