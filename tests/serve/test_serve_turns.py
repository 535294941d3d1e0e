"""Whose job comes next: keys take turns, whatever they delete, and finding it reads no job that has ended."""

from contextlib import closing
from itertools import count as counted

import pytest

from serve.store import NEXT, Job, Store, new_id

AGES = counted()  # when jobs were added, one after another
BEFORE = """
DROP TABLE turns; DROP INDEX jobs_by_turn; DROP INDEX jobs_by_end;
CREATE INDEX jobs_by_state ON jobs (state, owner);
"""


@pytest.fixture
def store(tmp_path):
    """A store that nobody else uses."""
    with closing(Store(tmp_path / "jobs.sqlite")) as opened:
        yield opened


def add(store, owner, count):
    for _ in range(count):
        job = Job(new_id(), owner, None, "hash", "baseline", 1, 1, "25", created=float(next(AGES)))
        store.add(job, 1_000, 1_000)


def served(store, count):
    """The owners of the next jobs, each made at once, and removed if it is mallory's."""
    owners = []
    for _ in range(count):
        job = store.claim(0)
        owners.append(job.owner)
        store.end(job, "completed")
        if job.owner == "mallory":
            store.remove(job.id)
    return owners


def test_removing_ones_ended_jobs_gains_no_turn(store):
    add(store, "mallory", 6)
    assert served(store, 2) == ["mallory"] * 2
    add(store, "alice", 3)
    assert served(store, 5) == ["alice", "mallory"] * 2 + ["alice"]


def test_a_clock_that_steps_back_changes_no_turn(store, monkeypatch):
    add(store, "alice", 3)
    add(store, "ben", 3)
    now = iter(range(1_000, 0, -1))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    assert served(store, 6) == ["alice", "ben"] * 3


def test_a_database_from_before_goes_on_with_its_turns(tmp_path):
    path = tmp_path / "jobs.sqlite"
    with closing(Store(path)) as store:
        for owner in ("alice", "ben", "carl"):
            add(store, owner, 1)
            assert served(store, 1) == [owner]
        store._database.executescript(BEFORE)
    for _ in range(2):  # what is filled in is filled in once
        with closing(Store(path)) as store:
            turns = store._database.execute("SELECT owner, last_served FROM turns").fetchall()
            assert sorted(turns) == [("alice", 1), ("ben", 2), ("carl", 3)]
    with closing(Store(path)) as store:
        for owner in ("carl", "ben", "alice", "dora"):
            add(store, owner, 1)
        assert served(store, 4) == ["dora", "alice", "ben", "carl"]


def test_finding_the_next_job_reads_no_job_that_has_ended(store):
    add(store, "alice", 2)
    plan = [row[3] for row in store._database.execute(f"EXPLAIN QUERY PLAN {NEXT}")]
    jobs = [step for step in plan if "jobs" in step]
    assert len(jobs) == 2 and all("COVERING INDEX jobs_by_turn (state=?" in step for step in jobs), plan
    assert not any("CORRELATED" in step for step in plan)
