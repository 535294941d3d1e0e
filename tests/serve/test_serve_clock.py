"""A clock that jumps, or a machine that sleeps, removes no results at once."""

import time

import anyio
import pytest

from serve import app
from serve.app import Service, look_after
from serve.clock import JUMP, Clock
from serve.jobs import JobRoutes
from serve.store import Job, new_id


@pytest.fixture
def times(monkeypatch):
    """Both clocks, which stand still unless a test moves them."""
    now = {"time": 1e9, "monotonic": 100.0}
    for name in now:
        monkeypatch.setattr(time, name, lambda name=name: now[name])

    def move(wall, monotonic):
        now["time"] += wall
        now["monotonic"] += monotonic

    return move


@pytest.mark.parametrize("step", [86_400.0, -86_400.0, JUMP + 1])
def test_a_jump_is_trusted_an_hour_later_and_not_before(times, step):
    watched = Clock()
    assert watched.now() == time.time()
    times(step, 0.0)
    assert watched.now() is None
    times(3_599.0, 3_599.0)
    assert watched.now() is None
    times(1.0, 1.0)
    assert watched.now() == time.time()


def test_a_late_look_and_a_clock_that_is_led_are_no_jump(times):
    watched = Clock()
    times(5_000.0, 5_000.0)
    assert watched.now() == time.time()
    for _ in range(100):
        times(1.0005, 1.0)  # 500 ppm, as fast as clocks are led
        assert watched.now() == time.time()


def test_a_step_of_the_clock_removes_nothing_until_the_pause_is_over(open_service, monkeypatch):
    service, now, shift = open_service(keep_seconds=1_000.0), time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + shift[0])
    monkeypatch.setattr(app, "PAUSE", 900.0)
    job = Job(new_id(), "ada", None, "hash", "baseline", 1, 1, "25", created=time.time())
    service.store.add(job, 10, 10)
    service.store.cancel(job.id)
    jobs, there = JobRoutes(service.settings, service.store), []
    facts = Service(service.settings, service.store, service.metrics, service.supervisor)

    async def rounds():
        async with anyio.create_task_group() as group:
            group.start_soon(look_after, facts, jobs, print, 0.01)
            for shift[0] in (0.0, 1e6):
                await anyio.sleep(0.2)  # some twenty rounds
                there.append(service.store.get(job.id) is not None)
            monkeypatch.setattr(app, "PAUSE", 0.0)
            with anyio.fail_after(30):
                while service.store.get(job.id) is not None:
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(rounds)
    assert there == [True, True]
