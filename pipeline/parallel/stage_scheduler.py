"""Decide which worker does which stage of which video next; two pools: files and networks.

This module knows nothing of processes or time, so a cluster and a simulation of one follow the same rules.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar


class Stage(str, Enum):
    """The stages of a video, in order."""

    READ = "read"
    MAKE = "make"
    WRITE = "write"


class Pool(str, Enum):
    """A kind of workers: those that read and write files, or those that run networks."""

    FILES = "files"
    NETWORKS = "networks"


POOL = {Stage.READ: Pool.FILES, Stage.MAKE: Pool.NETWORKS, Stage.WRITE: Pool.FILES}
NEXT = {Stage.READ: Stage.MAKE, Stage.MAKE: Stage.WRITE}


class Worker(Protocol):
    """A worker, which does one stage of one video at a time. node: the machine it runs on."""

    pool: Pool
    node: str


@dataclass(eq=False)
class Video:
    """A video in progress. stage: the next or current one. node: the machine that holds its data."""

    request: object
    stage: Stage = Stage.READ
    node: str = ""


W = TypeVar("W", bound=Worker)


class Flow(Generic[W]):
    """A scheduler with the videos that wait for a stage, and the workers that wait for a video.

    workers: the number in each pool. Back-pressure bounds the data between stages: at most as many videos are
    read ahead as there are network workers, and no video is made while as many wait to be written as there
    are file workers.
    """

    def __init__(self, requests: Iterable[object], workers: dict[Pool, int]) -> None:
        self._workers = workers
        self._waiting = {stage: deque() for stage in Stage}
        self._waiting[Stage.READ].extend(map(Video, requests))
        self._idle: dict[Pool, deque[W]] = {pool: deque() for pool in Pool}
        self._at: Counter[Stage] = Counter()

    def __bool__(self) -> bool:
        """Return whether any video waits or is being worked on."""
        return any(self._waiting.values()) or any(self._at.values())

    def free(self, worker: W) -> None:
        """Register a worker as free to take a video."""
        self._idle[worker.pool].append(worker)

    def begin(self) -> tuple[W, Video] | None:
        """Return a worker and the video whose stage it does now; None: nothing can begin.

        Later stages go first. A worker gets a video whose data is on its own node, if there is one.
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
        """Register that the video's stage is done, with its results on that node."""
        self._at[video.stage] -= 1
        if video.stage in NEXT:
            video.stage, video.node = NEXT[video.stage], node
            self._waiting[video.stage].append(video)

    def dropped(self, video: Video) -> None:
        """Register that the video in progress is given up."""
        self._at[video.stage] -= 1

    def again(self, video: Video) -> None:
        """Register that the video's data is lost: it starts anew, before all others."""
        self.dropped(video)
        video.stage, video.node = Stage.READ, ""
        self._waiting[Stage.READ].appendleft(video)

    def _has_room_after(self, stage: Stage) -> bool:
        """Return whether back-pressure allows another video to begin that stage."""
        if stage is Stage.WRITE:
            return True
        ahead = len(self._waiting[NEXT[stage]])
        if stage is Stage.MAKE:
            return ahead < self._workers[Pool.FILES]
        return ahead + self._at[Stage.READ] < self._workers[Pool.NETWORKS]
