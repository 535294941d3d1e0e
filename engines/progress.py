"""Show how far long work has come: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO, TypeVar

from engines.cli import printable

Item = TypeVar("Item")
STATUS = Path("/proc/self/status")  # Linux's


class Progress:
    """The progress of work of known size: a context manager that counts ticks and writes to stderr."""

    def __init__(
        self, label: str, total: int, stream: TextIO | None = None, every: float = 10.0, position: int = 0
    ) -> None:
        """position: the bar's line, for several at once; every: seconds between lines."""
        self.label = printable(label)
        self.total, self.every, self._position = total, every, position
        self.stream = stream or sys.stderr
        self.count, self._bar = 0, None
        self._started = self._spoke = time.monotonic()

    def __enter__(self) -> Progress:
        if self.stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self.label, total=self.total, file=self.stream, leave=False, dynamic_ncols=True,
                position=self._position,
            )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def tick(self) -> None:
        """Count one more part as done."""
        self.reach(self.count + 1)

    def reach(self, count: int) -> None:
        """Set how many parts are done."""
        done, self.count = count - self.count, count
        if self._bar is not None:
            self._bar.update(done)
        elif time.monotonic() - self._spoke >= self.every:
            self._spoke = time.monotonic()
            left = (self._spoke - self._started) / self.count * max(self.total - self.count, 0)
            with suppress(OSError, ValueError):  # nobody reads it any more
                text = f"{self.label}: {self.count}/{self.total}, {left:.0f} s left"
                print(text, file=self.stream, flush=True)

    def grow(self, count: int) -> None:
        """Add parts to the total."""
        self.total += count
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.refresh()


def shown(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Give the items one by one, and show how many are done."""
    with Progress(label, len(items)) as progress:
        for item in items:
            yield item
            progress.tick()


def peak_memory_mb() -> int:
    """Return the most memory that this process has held at once, in MiB.

    Linux hands the peak that getrusage gives on to child processes: one started by a process of 2 GB has
    2 GB from its first moment on. Linux's VmHWM is a process's own; where there is none, getrusage is asked.
    """
    own = STATUS.is_file() and re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if own:
        return int(own[1]) // 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)  # macOS gives bytes, others KiB
