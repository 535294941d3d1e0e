"""Workers that only wait, on a real Ray cluster: what the driver, Ray and the manifest cost shows by itself.

One process stands for the networks of a machine and one for its files; each takes as many videos at once as
the machine has workers, so that sixteen machines of eight fit on one of two cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from engines.spec import Cadence, ComponentSpec
from lab.null_engine import NullEngine
from lab.scaling.simulation import Costs, Machines
from pipeline.batch.batch import Jobs
from pipeline.batch.dataset import Pairing, Request
from pipeline.batch.run_folder import RunFolder
from pipeline.parallel.ray_actors import Opened, Receipt, store
from pipeline.parallel.ray_cluster import Driver, Worker
from pipeline.parallel.stage_scheduler import Pool, Stage

FRAMES = 48  # that a video is said to have


class NullWorkers:
    """All workers of one pool on one machine: those of pipeline.parallel.ray_actors, with null engines."""

    def __init__(self, pool: Pool, node: str, costs: Costs) -> None:
        self._pool, self._node, self._costs = pool, node, costs

    def open(self) -> Opened:
        """Start nothing."""
        identity = {"generator": "null"} if self._pool is Pool.NETWORKS else {}
        return Opened(self._node, f"{self._pool.value} on machine {self._node}", identity)

    def read(self, request: Request) -> Receipt:
        """Wait as long as reading takes."""
        return self._wait(Stage.READ, request.seed, {"notes": [], "number": request.seed})

    def make(self, read: Receipt, seed: int) -> Receipt:
        """Wait as long as networks take."""
        return self._wait(Stage.MAKE, seed, {"frames": FRAMES, "number": seed})

    def write(self, made: Receipt, output: Path) -> Receipt:
        """Wait as long as writing takes."""
        return self._wait(Stage.WRITE, made.facts["number"], {})

    def _wait(self, stage: Stage, number: int, facts: dict[str, object]) -> Receipt:
        spec = ComponentSpec(stage.value, Cadence.REQUEST, (), ())
        engine = NullEngine(spec, self._costs.seconds(stage, number))
        engine()
        arrays = [] if stage is Stage.WRITE else store([np.zeros(64, np.uint8)])
        return Receipt(arrays, facts, {stage.value: engine.seconds})


@dataclass(frozen=True)
class Measured:
    """A measured rate: videos a second between a fifth and four fifths of all, processor seconds of each.

    thread: of the driver's main thread, which hands out and records; process: with Ray's threads in it.
    """

    rate: float
    thread: float
    process: float


def measure(
    ray: ModuleType, costs: Costs, machines: Machines, videos: int, video: Path, say: Callable[[str], None]
) -> Measured:
    """Run null workers over so many requests; video: any, for its header."""
    kind, actors, workers = ray.remote(NullWorkers), [], []
    for node in map(str, range(machines.count)):
        for pool, size in ((Pool.NETWORKS, machines.networks), (Pool.FILES, machines.files)):
            actors.append(kind.options(num_cpus=0, max_concurrency=size).remote(pool, node, costs))
            workers += [Worker(pool, actors[-1]) for _ in range(size)]
    ray.get([actor.open.remote() for actor in actors])
    requests = [Request(f"{number:06}", video, video, number) for number in range(videos)]
    ends: list[float] = []

    def note(line: dict) -> None:
        ends.append(time.perf_counter())

    def open_jobs(identity: dict) -> Jobs:
        return Jobs(Pairing(requests, {}), folder, identity, say, note)

    with tempfile.TemporaryDirectory() as out, RunFolder(Path(out)) as folder:
        process, thread = time.process_time(), time.thread_time()
        Driver(ray, workers, open_jobs, say).run()
        process, thread = time.process_time() - process, time.thread_time() - thread
    for actor in actors:
        ray.kill(actor)
    first, last = videos // 5, videos * 4 // 5
    return Measured((last - first) / (ends[last] - ends[first]), thread / videos, process / videos)
