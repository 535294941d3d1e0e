"""Processes of tests: which run, and waiting for what they do."""

import signal
import time
from contextlib import suppress
from pathlib import Path


def processes_about(path):
    """Ids of running processes with this path in their command line."""
    return [process for process, command, _ in _running() if str(path) in command]


def children_of(parent):
    """Ids of the processes that one has started and that still run."""
    return [process for process, _, parent_id in _running() if parent_id == parent]


def _running():
    """Id, command line and parent's id of each running process."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile
            command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                yield int(entry.name), command, int(parent)


def wait_for(condition, seconds=60):
    """Wait until condition() holds; fails after some seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def heed_interrupts():
    """A shell starts what it runs in the background deaf to SIGINT, and that would be inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
