"""How much memory this process has needed."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")  # Linux's


def peak_memory_mb() -> int:
    """The most memory that this process has held at once, in MiB.

    Linux hands the peak that getrusage gives on to child processes: one started by a process of 2 GB has
    2 GB from its first moment on. Linux's VmHWM is a process's own; where there is none, getrusage is asked.
    """
    own = STATUS.is_file() and re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if own:
        return int(own[1]) // 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)  # macOS gives bytes, others KiB
