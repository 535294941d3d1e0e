"""Workers that hang, die or are refused: real processes under the real supervisor, without engines."""

import os
import signal
import time
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.parallel.worker_process import start_worker
from serve import supervisor, watchdog, worker
from serve.store import Job, new_id
from serve.supervisor import Supervisor
from serve.worker import JobLost, JobProgress
from tests.serve.stand_in import HANG


@pytest.fixture
def workers(open_service, monkeypatch):
    """A function that starts workers: their service, what was said, whether they were given up."""
    started = []
    monkeypatch.setattr(supervisor, "start_worker", lambda module, name, cores: start_worker(
        "tests.serve.stand_in", name, cores))
    monkeypatch.setattr(supervisor, "PAUSE", 0.01)

    def start(ready=1, **changed):
        service, said, given_up = open_service(**changed), [], []
        keeper = Supervisor(service.settings, service.store, service.metrics, said.append,
                            lambda: given_up.append(keeper.error))
        started.append(keeper)
        keeper.start()
        until(lambda: keeper.ready == ready or given_up)
        return SimpleNamespace(keeper=keeper, store=service.store, said=said, given_up=given_up, **vars(
            service.settings), metrics=service.metrics)

    yield start
    for keeper in started:
        keeper.stop()


def until(holds, within=30):
    """Wait until something holds."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def add(store, seed=1):
    job = Job(new_id(), "ada", None, "hash", "baseline", seed, 1, "25", created=time.time())
    return store.add(job, 100, 100).id


def process(workers, number=0):
    return workers.keeper._processes[number].pid


def hung(workers):
    """Add a job whose worker hangs in it; its id."""
    name = add(workers.store, HANG)
    until(lambda: workers.keeper.watchdog._holds)
    return name


@pytest.mark.parametrize("remove", [False, True])
def test_a_worker_that_hangs_in_a_cancelled_job_is_replaced(workers, monkeypatch, remove):
    service = workers()
    before, name = process(service), hung(service)
    (service.home / "videos" / name).mkdir()
    service.store.cancel(name)
    if remove:
        service.store.remove(name)
    assert service.keeper.watchdog.look() == []  # its worker may still come to see it
    monkeypatch.setattr(watchdog, "GRACE", 0.0)
    said = service.keeper.watchdog.look()
    assert said == [f"{name}: is over, but worker 1 hangs in it, and is replaced"]
    other = add(service.store)
    until(lambda: service.store.get(other).state == "completed")
    assert process(service) != before and not (service.home / "videos" / name).exists()
    assert service.keeper.watchdog.look() == []


def test_a_worker_that_hangs_when_its_time_is_up_is_replaced_though_its_job_was_cancelled(workers):
    service = workers(job_seconds=0.2)
    name = hung(service)
    service.store.cancel(name)
    time.sleep(0.25)
    assert service.keeper.watchdog.look() == [f"{name}: is over, but worker 1 hangs in it, and is replaced"]
    other = add(service.store)
    until(lambda: service.store.get(other).state == "completed")


def test_a_judge_that_hangs_is_replaced_when_its_video_is_removed(workers, monkeypatch):
    service = workers()
    video, base = (add(service.store) for _ in range(2))
    until(lambda: {service.store.get(name).state for name in (video, base)} == {"completed"})
    service.store.comparisons.ask(video, base)
    until(lambda: service.keeper.watchdog._holds)
    service.store.remove(base)
    assert service.keeper.watchdog.look() == []
    monkeypatch.setattr(watchdog, "GRACE", 0.0)
    said = service.keeper.watchdog.look()
    assert said == [f"{video}: is over, but worker 1 hangs in it, and is replaced"]
    other = add(service.store)
    until(lambda: service.store.get(other).state == "completed")


def test_a_worker_sees_that_its_job_was_cancelled_at_the_next_chunk_of_frames(service, monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "TICK", 0.0)
    name = add(service.store)
    progress = JobProgress(service.store, service.store.claim(0))
    chunks = progress.watch(tmp_path, [np.zeros((1, 16, 16, 3), np.uint8)] * 3, (16, 16), Fraction(25))
    next(chunks)
    service.store.cancel(name)
    with pytest.raises(JobLost):
        next(chunks)


def test_a_step_of_the_clock_fails_no_running_job(workers, monkeypatch):
    service = workers()
    name, now = hung(service), time.time
    for step in (1e9, -1e9):
        monkeypatch.setattr(time, "time", lambda step=step: now() + step)
        assert service.keeper.watchdog.look() == []
    assert service.store.get(name).state == "in_progress"


def test_a_worker_that_cannot_start_again_is_tried_on_while_the_other_works(workers, monkeypatch):
    service = workers(ready=2, devices=("cpu", "cuda:1"))
    before = process(service, 1)
    (service.home / "refused-1").touch()
    os.kill(before, signal.SIGKILL)
    until(lambda: service.metrics.deaths._value.get() > supervisor.TRIES + 1)
    assert service.given_up == [] and service.keeper.error is None and service.keeper.ready == 1
    service.metrics.ready = lambda: service.keeper.ready
    assert b"vivace_workers_ready 1.0\n" in service.metrics.text()
    assert b"vivace_workers 2.0\n" in service.metrics.text()
    told = [text for text in service.said if "gone" in text]
    assert told == ["worker 2 on cuda:1 did not start; it is tried again, ever more rarely: "
                    "cuda:1: the device is gone"]
    (service.home / "refused-1").unlink()
    until(lambda: service.keeper.ready == 2)


def test_a_worker_is_tried_after_pauses_that_double_up_to_a_minute():
    assert [supervisor.pause_after(failures) for failures in (0, 1, 2, 3, 7, 8, 5_000)] == [
        1, 1, 2, 4, 64, 64, 64]


@pytest.mark.parametrize(("fault", "why"), [
    ("refused", "cpu: the device is gone"),
    ("dies", "worker 1 on cpu did not start, 3 times: it died"),
    ("hangs", "worker 1: its engines have not started in 0.5 s"),
])
def test_a_service_whose_last_worker_cannot_start_again_is_given_up_after_three_tries(
        workers, fault, why, monkeypatch):
    service = workers()
    if fault == "hangs":
        monkeypatch.setattr(supervisor, "START", 0.5)
    (service.home / f"{fault}-0").touch()
    os.kill(process(service), signal.SIGKILL)
    until(lambda: service.given_up)
    assert str(service.given_up[0]) == why
    assert service.metrics.deaths._value.get() == 1 + supervisor.TRIES


@pytest.mark.parametrize(("fault", "why"), [
    ("refused", "cpu: the device is gone"), ("hangs", "worker 1: its engines have not started in 0.5 s")])
def test_a_service_none_of_whose_workers_ever_ran_is_given_up_at_once(
        workers, tmp_path, fault, why, monkeypatch):
    monkeypatch.setattr(supervisor, "START", 0.5 if fault == "hangs" else supervisor.START)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / f"{fault}-0").touch()
    service = workers()
    assert str(service.given_up[0]) == why
    assert service.metrics.deaths._value.get() == 1 and len(service.said) == 0
