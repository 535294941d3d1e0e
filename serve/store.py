"""Keep the jobs in SQLite: the table is the queue, and a change of state is one transaction.

A job is "queued", "in_progress", then "completed", "failed" or "cancelled". Each start of a job counts up its
attempt; what a worker says on an earlier attempt changes nothing, so a job ends once.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from serve.comparisons import COMPARISONS, Comparisons, claimed

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, idempotency TEXT, inputs TEXT NOT NULL, recipe TEXT NOT NULL,
    seed INTEGER NOT NULL, frames INTEGER NOT NULL, fps TEXT NOT NULL, created REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', worker INTEGER, attempt INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0, started REAL, ended REAL, done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0, made INTEGER NOT NULL DEFAULT 0, first REAL, code TEXT, error TEXT,
    result TEXT NOT NULL DEFAULT '{}', UNIQUE (owner, idempotency)
);
DROP INDEX IF EXISTS jobs_by_state;
CREATE INDEX IF NOT EXISTS jobs_by_turn ON jobs (state, owner, attempt, created, id);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, created);
CREATE INDEX IF NOT EXISTS jobs_by_inputs ON jobs (inputs);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (state, ended);
"""
# A key's turn outlives its jobs, so that removing them gains nothing. last_served counts claims, as no clock
# steps back; what databases from before have is filled in by the times in their rows.
TURNS = """
CREATE TABLE IF NOT EXISTS turns (owner TEXT PRIMARY KEY, last_served INTEGER NOT NULL);
INSERT INTO turns SELECT owner, row_number() OVER (ORDER BY max(started)) FROM jobs
    WHERE started IS NOT NULL AND NOT EXISTS (SELECT * FROM turns) GROUP BY owner;
"""
# Interrupted jobs first; then the key with the fewest running, then the one served longest ago; then by age.
NEXT = """
WITH running AS (SELECT owner, count(*) AS many FROM jobs WHERE state = 'in_progress' GROUP BY owner)
SELECT id FROM jobs LEFT JOIN running USING (owner) LEFT JOIN turns USING (owner) WHERE state = 'queued'
ORDER BY attempt = 0, coalesce(many, 0), coalesce(last_served, 0), created, id
"""
CLAIM = """
UPDATE jobs SET state = 'in_progress', worker = :worker, started = :now, attempt = attempt + 1, done = 0,
    total = 0, made = 0, first = NULL WHERE id = :id
"""
TAKE_TURN = """
REPLACE INTO turns SELECT owner, (SELECT coalesce(max(last_served), 0) + 1 FROM turns) FROM jobs
    WHERE id = :id
"""
OPEN, OVER = ("queued", "in_progress"), ("failed", "cancelled")  # OVER: ended without a video
ID = re.compile(r"video_[0-9a-f]{24}")
TRIES = 3  # of a job whose worker dies
SQLITE_ERRORS = {"disk is full": errno.ENOSPC, "disk I/O error": errno.EIO}


@dataclass(frozen=True)
class Job:
    """A row of the table. Times are seconds since 1970; first: from the start to the first frame.

    inputs: all that decides the video, see ServeSettings.inputs_of. done of total evaluations are made, and
    made of frames.
    """

    id: str
    owner: str
    idempotency: str | None
    inputs: str
    recipe: str
    seed: int
    frames: int
    fps: str
    created: float
    state: str = "queued"
    worker: int | None = None
    attempt: int = 0
    started: float | None = None
    ended: float | None = None
    done: int = 0
    total: int = 0
    made: int = 0
    first: float | None = None
    code: str | None = None
    error: str | None = None
    result: str = "{}"

    @property
    def open(self) -> bool:
        """Whether the job has not ended."""
        return self.state in OPEN


COLUMNS = ", ".join(field.name for field in fields(Job))


def new_id() -> str:
    """Draw the id of a job, which is the name of its folder too."""
    return f"video_{secrets.token_hex(12)}"


class Full(Exception):
    """Raised when the queue takes no more. own: because of the caller's own jobs."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own


class Store:
    """The jobs of a service; safe to use from several threads and processes.

    What was written is on the disk when a method returns, except for progress. comparisons: of the videos.
    All raise OSError if the disk is full or broken.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(SCHEMA + TURNS + COMPARISONS)
        self.comparisons = Comparisons(self._transaction)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        """Hold the database. OSError in place of SQLite's own error."""
        with self._lock:
            try:
                yield self._database
            except sqlite3.OperationalError as error:
                why = next((code for text, code in SQLITE_ERRORS.items() if text in str(error)), errno.EBUSY)
                raise OSError(why, f"the jobs' database: {error}") from error

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        with self._locked() as database, database:  # which commits, or rolls back
            if write:
                database.execute("BEGIN IMMEDIATE")
            yield database

    def _rows(self, where: str, *values: object) -> list[Job]:
        with self._locked() as database:
            return [Job(*row) for row in database.execute(f"SELECT {COLUMNS} FROM jobs {where}", values)]

    def add(self, job: Job, most_queued: int, most_per_key: int) -> Job:
        """Add a job, or return the one that came with the same idempotency key before. Full."""
        with self._transaction() as database:
            if job.idempotency is not None:
                known = database.execute(
                    f"SELECT {COLUMNS} FROM jobs WHERE owner = ? AND idempotency = ?",
                    (job.owner, job.idempotency),
                ).fetchone()
                if known:
                    return Job(*known)
            _check_room(database, job.owner, most_queued, most_per_key)
            values = [getattr(job, field.name) for field in fields(Job)]
            database.execute(f"INSERT INTO jobs ({COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)
        return job

    def check_room(self, owner: str, most_queued: int, most_per_key: int) -> None:
        """Raise Full if `add` would raise it now."""
        with self._locked() as database:
            _check_room(database, owner, most_queued, most_per_key)

    def keyed(self, owner: str, idempotency: str) -> bool:
        """Return whether an owner has a job that came with a key."""
        return bool(self._rows("WHERE owner = ? AND idempotency = ?", owner, idempotency))

    def get(self, name: str) -> Job | None:
        """Return a job, or None."""
        return next(iter(self._rows("WHERE id = ?", name)), None)

    def listed(self, owner: str, after: str | None, newest_first: bool, limit: int) -> list[Job]:
        """Return an owner's jobs by age, those that follow the job `after` if it is given."""
        order, sign = ("DESC", "<") if newest_first else ("ASC", ">")
        later = f"AND (created, id) {sign} (SELECT created, id FROM jobs WHERE id = ?)" if after else ""
        values = [owner, *filter(None, [after]), limit]
        return self._rows(f"WHERE owner = ? {later} ORDER BY created {order}, id {order} LIMIT ?", *values)

    def alike(self, owner: str, inputs: str) -> Job | None:
        """Return an owner's job of these inputs that is made, or will be; or None."""
        return next(iter(self._rows(
            "WHERE inputs = ? AND owner = ? AND state IN (?, ?, 'completed') ORDER BY state LIMIT 1",
            inputs, owner, *OPEN,
        )), None)  # fmt: skip

    def claim(self, worker: int) -> Job | None:
        """Give the next job to a worker, or None."""
        found = claimed(self._transaction, NEXT, (CLAIM, TAKE_TURN), worker)
        return found and self.get(found)

    def upcoming(self, workers: int) -> Job | None:
        """Return the job that a worker will probably be given after its present one, or None."""
        with self._locked() as database:
            found = database.execute(NEXT).fetchmany(workers)
        return self.get(*found[-1]) if len(found) == workers else None

    def progress(self, job: Job, done: int, total: int, made: int, first: float | None) -> bool:
        """Record how far a job has come; return False if it is not this attempt's any more."""
        with self._locked() as database:
            database.execute("PRAGMA synchronous = NORMAL")  # no sync: it is worth nothing after a crash
            try:
                return database.execute(
                    "UPDATE jobs SET done = ?, total = ?, made = ?, first = ? "
                    "WHERE id = ? AND attempt = ? AND state = 'in_progress'",
                    (done, total, made, first, job.id, job.attempt),
                ).rowcount > 0  # fmt: skip
            finally:
                database.execute("PRAGMA synchronous = FULL")

    def end(
        self, job: Job, state: str, result: Mapping | None = None, code: str = "", error: str = ""
    ) -> bool:
        """End a job; return False if it has ended already, or another attempt at it runs."""
        with self._transaction() as database:
            return database.execute(
                "UPDATE jobs SET state = ?, ended = ?, code = ?, error = ?, result = ? "
                "WHERE id = ? AND attempt = ? AND state IN (?, ?)",
                (state, time.time(), code or None, error or None, json.dumps(result or {}),
                 job.id, job.attempt, *OPEN),
            ).rowcount > 0  # fmt: skip

    def cancel(self, name: str) -> bool:
        """Cancel a job; return False if it has ended already."""
        with self._transaction() as database:
            return database.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state IN (?, ?)",
                (time.time(), name, *OPEN),
            ).rowcount > 0  # fmt: skip

    def remove(self, name: str) -> None:
        """Forget a job."""
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (name,))

    def release(self, worker: int | None = None) -> list[Job]:
        """Queue again what a worker had when it died; return the jobs that have failed, after TRIES deaths.

        worker: its number; None: all, when a service starts, and nobody is to blame.
        """
        self.comparisons.release(worker, TRIES)
        blame, mine = ("", "") if worker is None else (", deaths = deaths + 1", f"AND worker = {int(worker)}")
        with self._transaction() as database:
            database.execute(
                f"UPDATE jobs SET state = 'queued', worker = NULL{blame} WHERE state = 'in_progress' {mine}"
            )
        failed = self._rows("WHERE state = 'queued' AND deaths >= ?", TRIES)
        why = f"The worker died {TRIES} times while it made this video. Try a shorter one."
        return [job for job in failed if self.end(job, "failed", code="worker_died", error=why)]

    def expired(self, before: float) -> list[Job]:
        """Return the jobs that ended before a time, without base runs that a video is compared with."""
        kept = "SELECT base FROM comparisons"
        return self._rows(f"WHERE ended < ? AND id NOT IN ({kept})", before)

    def kept(self) -> set[str]:
        """Return the ids of the jobs whose files are needed."""
        return {job.id for job in self._rows("WHERE state != 'cancelled'")}

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by state."""
        with self._locked() as database:
            return dict(database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))

    def usual_seconds(self) -> float:
        """Return the mean seconds that the latest jobs ran, or 10."""
        latest = self._rows("WHERE state = 'completed' ORDER BY ended DESC LIMIT 20")
        return sum(job.ended - job.started for job in latest) / len(latest) if latest else 10.0


def _check_room(database: sqlite3.Connection, owner: str, most_queued: int, most_per_key: int) -> None:
    """Raise Full if an owner may have no job more."""
    waiting, own = "count(*) FILTER (WHERE state = 'queued')", "count(*) FILTER (WHERE owner = ?)"
    asked = f"SELECT {waiting}, {own} FROM jobs WHERE state IN (?, ?)"
    queued, mine = database.execute(asked, (owner, *OPEN)).fetchone()
    if mine >= most_per_key or queued >= most_queued:
        raise Full(own=mine >= most_per_key)
