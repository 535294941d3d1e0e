"""Who does what next, where two pools of workers pass videos on: files are read and written by one pool,
networks run in the other.

Nothing here knows of processes or time, so a cluster and a simulation of one follow the same rules.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar


class Stage(str, Enum):
    """What is done to a video, in this order."""

    READ = "read"
    MAKE = "make"
    WRITE = "write"


class Pool(str, Enum):
    """Workers of one kind."""

    FILES = "files"
    NETWORKS = "networks"


POOL = {Stage.READ: Pool.FILES, Stage.MAKE: Pool.NETWORKS, Stage.WRITE: Pool.FILES}
NEXT = {Stage.READ: Stage.MAKE, Stage.MAKE: Stage.WRITE}


class Worker(Protocol):
    """One that does a video's stages one at a time. node: the machine it runs on."""

    pool: Pool
    node: str


@dataclass(eq=False)
class Video:
    """A video on its way. node: where what its last stage gave lies."""

    request: object
    stage: Stage = Stage.READ
    node: str = ""


W = TypeVar("W", bound=Worker)


class Flow(Generic[W]):
    """Videos that wait for a stage, and workers that wait for a video.

    workers: how many there are of each pool. Back-pressure: as many videos at most are read ahead as networks
    have workers, and none is made while as many as files have workers wait to be written; that, and those in
    work, bounds what is held between the stages.
    """

    def __init__(self, requests: Iterable[object], workers: dict[Pool, int]) -> None:
        self._workers = workers
        self._waiting = {stage: deque() for stage in Stage}
        self._waiting[Stage.READ].extend(map(Video, requests))
        self._idle: dict[Pool, deque[W]] = {pool: deque() for pool in Pool}
        self._at: Counter[Stage] = Counter()

    def __bool__(self) -> bool:
        """Whether anything waits or is being worked on."""
        return any(self._waiting.values()) or any(self._at.values())

    def free(self, worker: W) -> None:
        """The worker can take a video."""
        self._idle[worker.pool].append(worker)

    def begin(self) -> tuple[W, Video] | None:
        """A worker and the video whose stage it is to do now; None: nothing can begin.

        What is nearest to its end goes first. A worker gets a video that lies on its own node, if one does.
        """
        for stage in reversed(Stage):
            idle, waiting = self._idle[POOL[stage]], self._waiting[stage]
            if idle and waiting and self._has_room_after(stage):
                worker = idle.popleft()
                here = (video for video in waiting if video.node == worker.node)
                video = waiting[0] if stage is Stage.READ else next(here, waiting[0])
                waiting.remove(video)
                self._at[stage] += 1
                return worker, video
        return None

    def passed(self, video: Video, node: str) -> None:
        """A stage of the video is done, and what it gave lies on that node."""
        self._at[video.stage] -= 1
        if video.stage in NEXT:
            video.stage, video.node = NEXT[video.stage], node
            self._waiting[video.stage].append(video)

    def dropped(self, video: Video) -> None:
        """The video goes no further."""
        self._at[video.stage] -= 1

    def again(self, video: Video) -> None:
        """What there was of the video is lost: it starts anew, before others."""
        self.dropped(video)
        video.stage, video.node = Stage.READ, ""
        self._waiting[Stage.READ].appendleft(video)

    def _has_room_after(self, stage: Stage) -> bool:
        if stage is Stage.WRITE:
            return True
        ahead = len(self._waiting[NEXT[stage]])
        if stage is Stage.MAKE:
            return ahead < self._workers[Pool.FILES]
        return ahead + self._at[Stage.READ] < self._workers[Pool.NETWORKS]
