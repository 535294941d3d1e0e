"""A full disk: who uploads is told, nothing half is kept, and jobs go on as soon as there is room."""

import errno
import os
from contextlib import contextmanager
from multiprocessing import Pipe

import anyio
from test_serve_jobs import error, post

from pipeline.parallel.worker import Broken, Started
from serve import supervisor, worker
from serve.app import Service, look_after
from serve.jobs import JobRoutes
from serve.store import Store
from serve.watchdog import Took


def test_a_full_disk_is_said_and_leaves_nothing(service, inputs, monkeypatch):
    files = inputs()

    async def full_upload(*given):
        full()

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        error(post(service, files), 507, "disk_full")
    with monkeypatch.context() as patched:  # while the form is read
        patched.setattr("starlette.datastructures.UploadFile.write", full_upload)
        error(post(service, files), 507, "disk_full")
    assert list(service.settings.videos.iterdir()) == []
    with full_database(service.store):
        accepted = 0
        while (answer := post(service, files)).status_code == 202:  # until the last page is full
            accepted += 1
    error(answer, 507, "disk_full")
    assert len(list(service.settings.videos.iterdir())) == accepted == service.store.counts()["queued"]


@contextmanager
def full_database(store):
    """A database that may have no page more."""
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        store._database.execute("PRAGMA max_page_count = 1073741823")


def test_after_a_full_disk_jobs_go_on_and_are_looked_after(open_service, inputs, monkeypatch):
    """What a dead worker had is queued again, and old jobs are forgotten, as soon as there is room."""
    service, said = open_service(keep_seconds=0.0), []
    name = post(service, inputs()).json()["id"]
    service.store.claim(0)
    tries = []

    def release(*given):
        tries.append(given)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "database or disk is full")
        return []

    monkeypatch.setattr(supervisor, "FULL_PAUSE", 0.0)
    keeper = supervisor.Supervisor(service.settings, service.store, service.metrics, said.append, None)
    with monkeypatch.context() as patched:
        patched.setattr(service.store, "release", release)
        keeper._release(0)
    assert len(tries) == 2 and "is queued again when that can be written" in said[0]
    service.store.release(0)
    assert service.store.cancel(name)
    jobs = JobRoutes(service.settings, service.store)
    facts = Service(service.settings, service.store, service.metrics, service.supervisor)
    remove, left = service.store.remove, [2]

    def removed(name):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, "database or disk is full")
        remove(name)

    monkeypatch.setattr(service.store, "remove", removed)

    async def rounds():
        with anyio.move_on_after(1):
            await look_after(facts, jobs, said.append, every=0.01)

    anyio.run(rounds)
    assert service.store.get(name) is None and "jobs are looked after again" in said[1]


def test_a_worker_whose_store_is_full_ends_and_says_so(service, inputs, monkeypatch):
    post(service, inputs())
    monkeypatch.setattr(Store, "progress", full)
    monkeypatch.setattr(Store, "end", full)
    ours, theirs = Pipe()
    ours.send((0, "cpu", service.settings))
    monkeypatch.setattr(worker, "_end_with", lambda connection: None)
    worker.work(os.dup(theirs.fileno()))
    assert isinstance(ours.recv(), Started) and isinstance(ours.recv(), Took)
    broken = ours.recv()
    assert isinstance(broken, Broken) and "disk is full" in broken.why


def full(*given):
    raise OSError(errno.ENOSPC, "No space left on device: the disk is full")
