"""However early or often a build is interrupted, it has ended before what it works on is freed."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from engines.tensorrt.build_progress import interruptible


def test_an_interruption_while_the_thread_starts_leaves_no_work_behind(monkeypatch):
    """It comes when the thread runs, before the pool has noted that it must be waited for."""
    worked, monitor, add = [], SimpleNamespace(cancelled=False), ThreadPoolExecutor._adjust_thread_count

    def interrupted(self):
        add(self)
        self._threads.clear()
        threading.Event().wait(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "_adjust_thread_count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: worked.append(1), monitor)
    threading.Event().wait(0.1)
    assert monitor.cancelled and not worked


def test_a_second_interruption_does_not_leave_the_work_behind():
    ended, monitor = threading.Event(), SimpleNamespace(cancelled=False)

    def work():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.1)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        interruptible(work, monitor)
    assert monitor.cancelled and ended.is_set()


def test_what_the_work_gives_or_raises_is_handed_on():
    assert interruptible(lambda: 3, SimpleNamespace(cancelled=False)) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, SimpleNamespace(cancelled=False))
