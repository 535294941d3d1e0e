"""Watch what each worker holds, so that one that hangs is replaced, whatever has become of its job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from shutil import rmtree

from serve.comparisons import Comparison
from serve.settings import ServeSettings
from serve.store import Job, Store

# Seconds that a worker may go on with what is over. It looks at its job's row at each evaluation and each
# chunk of frames; in between it reads the inputs, or runs a large network once. A kill costs a start of the
# engines, which takes about as long.
GRACE = 30.0


@dataclass(frozen=True)
class Took:
    """A message: what a worker has begun with; None: with nothing, it has ended what it had."""

    held: Job | Comparison | None


@dataclass
class Hold:
    """What a worker has, since when, and since when that is known to be over; by time.monotonic()."""

    held: Job | Comparison
    since: float
    over: float | None = None
    killed: bool = False

    @property
    def name(self) -> str:
        """The video's id."""
        return self.held.id if isinstance(self.held, Job) else self.held.video


class Watchdog:
    """The holds of a service's workers. kill: ends the worker of a number, which is then replaced."""

    def __init__(self, settings: ServeSettings, store: Store, kill: Callable[[int], None]) -> None:
        self._settings, self._store, self._kill = settings, store, kill
        self._holds: dict[int, Hold] = {}

    def took(self, number: int, held: Job | Comparison | None) -> None:
        """Note what a worker has from now on."""
        if held is None:
            self._holds.pop(number, None)
        else:
            self._holds[number] = Hold(held, time.monotonic())

    def look(self) -> list[str]:
        """End what has run for too long, kill the workers that hold on to what is over; return what to say.

        To be called again and again. OSError: the database cannot be read or written.
        """
        said = []
        for number, hold in list(self._holds.items()):
            now, runs = time.monotonic(), self._runs(number, hold)
            if not runs and hold.over is None:
                hold.over = now
            late = now - hold.since > self._settings.job_seconds
            if hold.killed or not late and (runs or now - hold.over <= GRACE):
                continue
            hangs = f"is over, but worker {number + 1} hangs in it, and is replaced"
            why = self._end(hold) if runs else hangs
            if self._holds.get(number) is hold:
                hold.killed = True
                said.append(f"{hold.name}: {why}")
                self._kill(number)
        return said

    def buried(self, number: int) -> None:
        """Forget what a dead worker had; remove the files that it would have removed itself. OSError."""
        hold = self._holds.get(number)
        if hold is not None and isinstance(hold.held, Job):
            left = self._store.get(hold.held.id)
            if left is None or left.state == "cancelled":
                rmtree(self._settings.videos / hold.held.id, ignore_errors=True)
        self.took(number, None)

    def _runs(self, number: int, hold: Hold) -> bool:
        """Return whether a worker's attempt still counts."""
        of_job = isinstance(hold.held, Job)
        row = self._store.get(hold.name) if of_job else self._store.comparisons.get(hold.name)
        attempt = ("in_progress", number, hold.held.attempt)
        return row is not None and (row.state, row.worker, row.attempt) == attempt

    def _end(self, hold: Hold) -> str:
        """Fail what has run for too long; return what to say. OSError."""
        if not isinstance(hold.held, Job):
            why = "Judging took too long."
            self._store.comparisons.end(hold.held, "failed", error=why)
            return why
        why = f"It took longer than {self._settings.job_seconds:g} s, the limit. Cut the video into parts."
        self._store.end(hold.held, "failed", code="timeout", error=why)
        return f"failed: {why}"
