"""Keep the comparisons of videos with the base model's, in SQLite beside the jobs.

A comparison is "queued" until both videos are made, "in_progress" while a worker judges them, then
"completed" or "failed". It goes with either of its jobs.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

COMPARISONS = """
CREATE TABLE IF NOT EXISTS comparisons (
    video TEXT PRIMARY KEY, base TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued', worker INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, started REAL, error TEXT,
    result TEXT NOT NULL DEFAULT 'null'
);
CREATE TRIGGER IF NOT EXISTS comparisons_go AFTER DELETE ON jobs
    BEGIN DELETE FROM comparisons WHERE video = old.id OR base = old.id; END;
"""
NEXT = """
SELECT video FROM comparisons WHERE state = 'queued' AND (
    SELECT count(*) FROM jobs WHERE id IN (video, base) AND state = 'completed') = 2
"""
CLAIM = """
UPDATE comparisons SET state = 'in_progress', worker = :worker, started = :now, attempt = attempt + 1
WHERE video = :id
"""
RELEASE = """
UPDATE comparisons SET deaths = deaths + :blame, worker = NULL, error = :why,
    state = CASE WHEN deaths + :blame < :tries THEN 'queued' ELSE 'failed' END
WHERE state = 'in_progress' AND (:worker IS NULL OR worker = :worker)
"""


@dataclass(frozen=True)
class Comparison:
    """A row of the table. video, base: ids of the jobs. result: the judge's."""

    video: str
    base: str
    state: str = "queued"
    worker: int | None = None
    attempt: int = 0
    error: str | None = None
    result: str = "null"


COLUMNS = ", ".join(field.name for field in fields(Comparison))


Transaction = Callable[..., AbstractContextManager[sqlite3.Connection]]


def claimed(transaction: Transaction, which: str, claims: Sequence[str], worker: int) -> str | None:
    """Give the first row that `which` finds to a worker by the statements `claims`; return its id or None."""
    for write in (False, True):  # a look first: most find nothing, and who writes keeps others waiting
        with transaction(write=write) as database:
            found = database.execute(which).fetchone()
            if found and write:
                for claim in claims:
                    database.execute(claim, {"worker": worker, "now": time.time(), "id": found[0]})
        if not found:
            return None
    return found[0]


class Comparisons:
    """The comparisons of a service. transaction: of the store that the jobs are in."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def _rows(self, where: str, *values: object) -> list[Comparison]:
        with self._transaction(write=False) as database:
            found = database.execute(f"SELECT {COLUMNS} FROM comparisons {where}", values)
            return [Comparison(*row) for row in found]

    def ask(self, video: str, base: str) -> bool:
        """Queue a comparison, in place of an earlier one of the video; return False if a job is gone."""
        with self._transaction() as database:
            return database.execute(
                "REPLACE INTO comparisons (video, base) SELECT :video, :base "
                "WHERE (SELECT count(*) FROM jobs WHERE id IN (:video, :base)) = 2",
                {"video": video, "base": base},
            ).rowcount > 0  # fmt: skip

    def get(self, video: str) -> Comparison | None:
        """Return a video's comparison, or None."""
        return next(iter(self._rows("WHERE video = ?", video)), None)

    def claim(self, worker: int) -> Comparison | None:
        """Give one whose videos are made to a worker, or None."""
        found = claimed(self._transaction, NEXT, (CLAIM,), worker)
        return found and self.get(found)

    def end(self, asked: Comparison, state: str, result: Mapping | None = None, error: str = "") -> bool:
        """End a comparison; return False if it has ended already, or another attempt at it runs."""
        with self._transaction() as database:
            return database.execute(
                "UPDATE comparisons SET state = ?, result = ?, error = ? "
                "WHERE video = ? AND base = ? AND attempt = ? AND state = 'in_progress'",
                (state, json.dumps(result), error or None, asked.video, asked.base, asked.attempt),
            ).rowcount > 0  # fmt: skip

    def release(self, worker: int | None, tries: int) -> None:
        """Queue again what a worker had when it died, or fail it after so many deaths. None: all."""
        why = f"The worker died {tries} times while it judged." if worker is not None else None
        values = {"worker": worker, "blame": int(worker is not None), "tries": tries, "why": why}
        with self._transaction() as database:
            database.execute(RELEASE, values)
