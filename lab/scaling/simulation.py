"""Simulate a cluster in virtual time: the rules of the stage scheduler, with seconds for all that takes any.

One driver hands out one stage after the other. What a stage gave goes through the network of the machine that
takes it, one transfer after the other, unless it is there already. Nothing fails; videos differ in length.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import count

from pipeline.parallel.stage_scheduler import Flow, Pool, Stage

GOLDEN = 0.618034  # its multiples fill 0 to 1 evenly, in any stretch


@dataclass(frozen=True)
class Costs:
    """The costs of a video of mean length: seconds of a worker by stage, of the driver for each stage.

    read_bytes go from reading to networks, made_bytes from networks to writing.
    """

    read: float
    make: float
    write: float
    dispatch: float
    read_bytes: float = 0.0
    made_bytes: float = 0.0

    def seconds(self, stage: Stage, number: int) -> float:
        """Return a worker's seconds for the video of that number; videos are half to one and a half times as
        long.
        """
        length = 0.5 + number * GOLDEN % 1
        return length * {Stage.READ: self.read, Stage.MAKE: self.make, Stage.WRITE: self.write}[stage]

    def incoming(self, stage: Stage) -> float:
        """Return bytes that a stage takes over from the one before."""
        return {Stage.READ: 0.0, Stage.MAKE: self.read_bytes, Stage.WRITE: self.made_bytes}[stage]


@dataclass(frozen=True)
class Machines:
    """Equal machines: workers of each pool on one, and bytes a second that it can receive."""

    count: int
    networks: int
    files: int
    bandwidth: float = float("inf")


@dataclass(frozen=True)
class Worker:
    """One worker of a machine."""

    pool: Pool
    node: str


@dataclass(frozen=True)
class Simulated:
    """A simulated rate: videos a second between a fifth and four fifths of all; how busy each part was."""

    rate: float
    busy: dict[str, float]


def simulate(costs: Costs, machines: Machines, videos: int) -> Simulated:
    """Run so many videos through the machines; ten for each network worker are enough to settle."""
    size = {Pool.NETWORKS: machines.networks, Pool.FILES: machines.files}
    workers = [
        Worker(pool, str(node)) for node in range(machines.count) for pool in Pool for _ in range(size[pool])
    ]
    flow: Flow[Worker] = Flow(range(videos), {pool: machines.count * size[pool] for pool in Pool})
    for worker in workers:
        flow.free(worker)
    ends, number, written = [], count(), []
    now = driver = 0.0
    link: Counter[str] = Counter()  # when each machine's network is free
    spent: Counter[str] = Counter()
    while flow:
        while begun := flow.begin():
            worker, video = begun
            driver = max(driver, now) + costs.dispatch
            start, stage = driver, video.stage
            if costs.incoming(stage) and video.node != worker.node:
                passing = costs.incoming(stage) / machines.bandwidth
                start = link[worker.node] = max(start, link[worker.node]) + passing
                spent["machines' network"] += passing / machines.count
            seconds = costs.seconds(stage, video.request)
            heapq.heappush(ends, (start + seconds, next(number), worker, video))
            spent["driver"] += costs.dispatch
            spent[worker.pool.value] += seconds / (machines.count * size[worker.pool])
        now, _, worker, video = heapq.heappop(ends)
        if video.stage is Stage.WRITE:
            written.append(now)
        flow.passed(video, worker.node)
        flow.free(worker)
    first, last = len(written) // 5, len(written) * 4 // 5
    rate = (last - first) / (written[last] - written[first])
    return Simulated(rate, {name: seconds * rate / videos for name, seconds in spent.items()})
