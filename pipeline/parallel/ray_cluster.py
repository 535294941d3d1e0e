"""Make a run's videos on a Ray cluster: some actors read and write files, others run the networks.

Ray places the actors, restarts those that are lost, and moves arrays between machines; the stage scheduler
decides which worker does which video next. See docs/cluster.md, also for why not Ray Data.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from engines.errors import EngineError, Exit, ProgramKilled, VivaceError, exit_of
from pipeline.batch.batch import Jobs
from pipeline.batch.dataset import Request
from pipeline.parallel.ray_actors import FileWorker, NetworkWorker, Opened, Receipt
from pipeline.parallel.ray_watch import LOOK, Watch
from pipeline.parallel.stage_scheduler import Flow, Pool, Stage, Video
from pipeline.parallel.worker_pool import STOPPED, longest_first
from pipeline.runner import VIDEO_FAILURES, Settings

TRIES = 3  # of a video: machines join and leave a cluster, and one that leaves may lose videos
OPENINGS = 3  # attempts to open a worker that dies while it opens
RESTART_PAUSE = 0.5  # seconds before a worker that is restarting is opened again
PATIENCE = 600.0  # seconds without any worker before the run ends with an error
CONNECTING = 10.0  # seconds for a cluster's head node to answer
LOCAL = "local"
OpenJobs = Callable[[Mapping[str, object]], Jobs]


@dataclass(eq=False)
class Worker:
    """The driver's handle of an actor. node, name and pid: of its process, once it is open."""

    pool: Pool
    actor: object
    node: str = ""
    name: str = ""
    pid: int = 0


def run_cluster(
    settings: Settings, address: str, workers: int | None, open_jobs: OpenJobs, say: Callable[[str], None]
) -> Jobs:
    """Make the videos that are not finished on the cluster at an address, or on this machine's own ("local").

    workers: number of workers that run networks; None: one for each GPU, or one for each machine where
    settings.device is a CPU. More workers than GPUs share the GPUs. Every machine must have this folder, the
    data and the output folder under the same paths. EngineError: no Ray, no cluster, no GPU, or no worker can
    start. DiskError.
    """
    ray = connect(address)
    try:
        pools = _start(ray, settings.absolute(), workers)
        return Driver(ray, pools, open_jobs, say).run()
    finally:
        ray.shutdown()


class Driver:
    """The driver of a cluster's run: gives videos to workers, and records the results in jobs."""

    def __init__(
        self, ray: ModuleType, workers: list[Worker], open_jobs: OpenJobs, say: Callable[[str], None]
    ) -> None:
        self._ray, self._workers, self._open_jobs, self._say = ray, workers, open_jobs, say
        self._pending: dict[object, tuple[Worker, Video | None]] = {}
        self._made: dict[Video, list[Receipt]] = {}
        self._tries: defaultdict[str, list[str]] = defaultdict(list)
        self._opened: list[Worker] = []
        self.jobs, self._flow = None, None

    def run(self) -> Jobs:
        """Run until every video is made or has failed; return the jobs.

        EngineError: there is no worker, or the workers' identities differ. DiskError.
        """
        for worker in self._workers:
            self._open(worker)
        watch, last = Watch(self._ray, STOPPED), time.monotonic()
        while self.jobs is None or self._flow:
            self._begin()
            done, _ = self._ray.wait(list(self._pending), timeout=LOOK)
            busy = [(worker.node, worker.pid) for worker, video in self._pending.values() if video]
            last = time.monotonic() if done or busy else last
            if time.monotonic() - last > PATIENCE:
                raise EngineError(f"the cluster had no worker for {PATIENCE:g} s; run again to go on")
            watch.look(busy)
            for reference in done:
                self._ended(reference)
        return self.jobs

    def _open(self, worker: Worker) -> None:
        """Have a worker start its engines as soon as Ray has placed it on a machine."""
        opening = worker.actor.open.options(max_task_retries=OPENINGS)
        self._pending[opening.remote()] = worker, None

    def _begin(self) -> None:
        """Start every stage for which a worker and a video are free."""
        while self.jobs is not None and (begun := self._flow.begin()):
            worker, video = begun
            receipts, request = self._made.setdefault(video, []), video.request
            if video.stage is Stage.READ:
                reference = worker.actor.read.remote(request.absolute())
            elif video.stage is Stage.MAKE:
                reference = worker.actor.make.remote(receipts[-1], request.seed)
            else:
                output = (self.jobs.out / f"{request.id}.mp4").absolute()
                reference = worker.actor.write.remote(receipts[-1], output)
            self._pending[reference] = worker, video

    def _ended(self, reference: object) -> None:
        """Handle the result of a call that has ended: of opening a worker, or of a video's stage."""
        errors = self._ray.exceptions
        worker, video = self._pending.pop(reference)
        try:
            answer = self._ray.get(reference)
        except errors.RayTaskError as error:  # the worker lives, its work has failed
            if video is None:
                self._cannot_open(worker, error.cause)
            else:
                self._free(worker)
                self._failed(worker, video, error.cause)
        except errors.RayError as error:  # the worker is gone
            why = str(error).strip().splitlines()[0]
            if video is None and isinstance(error, errors.ActorUnavailableError):
                time.sleep(RESTART_PAUSE)  # its process is starting again
                self._open(worker)
            elif video is None:
                self._cannot_open(worker, EngineError(f"{worker.pool.value}: {why}"))
            else:
                self._say(f"{worker.name} is lost; Ray starts another: {why}")
                self._open(worker)
                self._again(video, f"{worker.name} was lost", Exit.EXHAUSTED)
        else:
            if video is None:
                self._is_open(worker, answer)
            else:
                self._passed(worker, video, answer)

    def _is_open(self, worker: Worker, opened: Opened) -> None:
        """Register a worker that is ready; the first one with an identity opens the jobs. EngineError."""
        worker.node, worker.name, worker.pid = opened.node, opened.name, opened.pid
        if self.jobs is not None and opened.identity:
            self.jobs.check(opened.identity, worker.name)
        elif opened.identity:
            for text in opened.messages:
                self._say(text)
            self.jobs = self._open_jobs(opened.identity)
            counts = Counter(each.pool for each in self._workers)
            self._flow = Flow(longest_first(self.jobs.todo), counts)
            for each in self._opened:
                self._flow.free(each)
        self._free(worker)

    def _free(self, worker: Worker) -> None:
        """Let a worker take videos; before the jobs are open it waits."""
        if self._flow is None:
            self._opened.append(worker)
        else:
            self._flow.free(worker)

    def _cannot_open(self, worker: Worker, cause: Exception) -> None:
        """Go on without a worker that cannot start; raise its error if there is no other in its pool."""
        self._workers.remove(worker)
        if self.jobs is None or not any(other.pool is worker.pool for other in self._workers):
            raise cause
        self._say(f"going on without a worker for {worker.pool.value}, which cannot start: {cause}")

    def _passed(self, worker: Worker, video: Video, receipt: Receipt) -> None:
        """Keep a stage's receipt, free the arrays of earlier ones, and record the video after its last."""
        ended, receipts = video.stage is Stage.WRITE, self._made[video]
        for used in receipts:
            used.arrays.clear()  # lets the store free them
        receipts.append(receipt)
        self._flow.passed(video, worker.node)
        self._flow.free(worker)
        if ended:
            self.jobs.ended(self._line(video.request, self._made.pop(video)), Exit.OK)

    def _failed(self, worker: Worker, video: Video, cause: Exception) -> None:
        """Record a video whose inputs or output cannot be used as failed; try it again for other errors.

        What would come again on every machine, as a GeneratorError, is raised and ends the run.
        """
        if isinstance(cause, VIDEO_FAILURES) and not isinstance(cause, ProgramKilled):
            self._lost(video, str(cause) or type(cause).__name__, exit_of(cause))
        elif isinstance(cause, self._ray.exceptions.RayError):
            self._again(video, "the worker that held what there was of it was lost", Exit.EXHAUSTED)
        elif isinstance(cause, VivaceError) and not isinstance(cause, (EngineError, ProgramKilled)):
            raise cause
        else:
            self._again(video, f"{worker.name} failed ({type(cause).__name__}: {cause})", exit_of(cause))

    def _again(self, video: Video, why: str, status: Exit) -> None:
        """Start a video anew, or record it as failed after TRIES."""
        request = video.request
        self._tries[request.id].append(f"{why}; it was tried again")
        if len(self._tries[request.id]) == TRIES:
            self._lost(video, f"{why}, at try {TRIES} of this video", status)
        else:
            self._say(f"{self.jobs.label(request.id)}: {why}; it is tried again")
            self._made.pop(video)
            self._flow.again(video)

    def _lost(self, video: Video, why: str, status: Exit) -> None:
        self._made.pop(video)
        self._flow.dropped(video)
        self.jobs.lost(video.request, why, status)

    def _line(self, request: Request, receipts: list[Receipt]) -> dict:
        """Return a finished video's manifest line from the receipts of its stages."""
        facts: dict[str, object] = {}
        seconds: Counter[str] = Counter()
        notes = []
        for receipt in receipts:
            facts |= receipt.facts
            notes += receipt.facts.get("notes", [])
            seconds.update(receipt.seconds)
        facts["notes"] = [*notes, *self._tries[request.id]]
        facts["seconds"] = {stage: round(spent, 4) for stage, spent in seconds.items()}
        facts["total_seconds"] = round(seconds.total(), 4)
        output = {"status": "done", "output": str(self.jobs.out / f"{request.id}.mp4")}
        return {**request.described(), **self.jobs.identity, **output, **facts}


def connect(address: str) -> ModuleType:
    """Connect to a cluster and return the ray module; without Ray's usage statistics and its dashboard.

    A cluster of this machine's own ("local") takes calls of this process and its children alone.
    EngineError: Ray is not installed, or nothing answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on all addresses, and runs what it is sent: without this token it answers nobody.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as error:
        raise EngineError("Ray is not installed; run: pip install -r requirements-cluster.txt") from error
    own = {"include_dashboard": False} if address == LOCAL else {}
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        if address != LOCAL:
            _check_answers(address)
        ray.init(address, log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(f"--ray {address}: {error}; give a cluster's HOST:PORT, or local") from error
    signal.signal(signal.SIGTERM, terminated)  # ray.init has replaced the handler
    return ray


def _check_answers(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at the address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), CONNECTING).close()


def _start(ray: ModuleType, settings: Settings, workers: int | None) -> list[Worker]:
    """Create the actors, which Ray restarts on any machine with room. EngineError: the cluster has no GPU."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, needs = sum(machine.get("GPU", 0) for machine in machines), {}
    if settings.device.startswith("cuda"):
        if not gpus:
            raise EngineError("the cluster has no GPU; give --device cpu, or a cluster with GPUs")
        count = workers or int(gpus)
        needs["num_gpus"] = gpus_each(gpus, count)
    else:
        count = workers or len(machines)
        needs["num_cpus"] = cores_each([int(machine.get("CPU", 0)) for machine in machines], count)
    kept = {"max_restarts": -1, "scheduling_strategy": "SPREAD"}
    network = ray.remote(NetworkWorker).options(**needs, **kept)
    file = ray.remote(FileWorker).options(num_cpus=0, **kept)
    made = {Pool.NETWORKS: network, Pool.FILES: file}
    return [Worker(pool, kind.remote(settings)) for pool, kind in made.items() for _ in range(count)]


def gpus_each(gpus: float, count: int) -> float:
    """Return the share of a GPU that each of `count` workers gets: one whole, or an equal part of one."""
    return 1 / max(1, math.ceil(count / gpus))


def cores_each(machines: Sequence[int], count: int) -> int:
    """Return the most cores that each of `count` workers can have on machines with so many; at least 1."""
    fitting = (cores for cores in range(max(machines), 0, -1) if sum(m // cores for m in machines) >= count)
    return next(fitting, 1)
