"""Start a worker's process, a session of its own with its share of the cores; tell whether one is stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Pins the cores first, because libraries count them when they are imported.
PROGRAM = """
import sys
sys.path[0] = {root!r}
from pipeline.parallel.cpu_affinity import pin_to
pin_to({cores})
from {module} import {name}
{name}{given}
"""


def start_worker(
    module: str, name: str, cores: Sequence[int], *given: int
) -> tuple[subprocess.Popen, Connection]:
    """Have a new process call module.name(descriptor of a connection, *given); return it and our end."""
    connection, theirs = Pipe()
    with theirs:
        called = {"module": module, "name": name, "given": (theirs.fileno(), *given)}
        program = PROGRAM.format(root=str(ROOT), cores=list(cores), **called)
        # stdout is for manifest lines alone, so what a generator prints goes to stderr.
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=2,
            pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
    return process, connection


def is_stopped(pid: int) -> bool:
    """Tell whether a process has been stopped by a signal; False where there is no /proc."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False
