"""Run the GPU memory tests in a process of their own, and keep what became of each, also if time ends first.

There this module is a plug-in of pytest, which notes outcomes as they come: pytest reports at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lab.gpu.run import ROOT, TESTS_LIMIT, WORDS, Emit, Place

if TYPE_CHECKING:
    import pytest

TESTS = "tests/gpu/test_gpu_memory.py"  # its slowest test is its last
BEGUN = "running when time ended"


def run_tests(place: Place, emit: Emit) -> None:
    """Emit how many tests passed, failed, were skipped or did not end, and why."""
    notes = place.folder / "tests.jsonl"
    notes.write_text("")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", TESTS]
    command += ["-p", "lab.gpu.memory_tests", f"--notes={notes}"]
    command += ["-p", "no:cacheprovider", "-W", "default"]  # other versions warn
    emit("pytest", _run(command, None if place.tiny else TESTS_LIMIT))
    counts, reasons = read_notes(notes)
    emit("counts", counts)
    emit("reasons", reasons)


def read_notes(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many tests came to each outcome, and reasons by name of those that did not pass."""
    last = {}
    for line in path.read_text().splitlines():
        name, outcome, reason = json.loads(line)
        last[name] = outcome, reason
    reasons = {name: reason or outcome for name, (outcome, reason) in last.items() if outcome != "passed"}
    return dict(Counter(outcome for outcome, _ in last.values())), reasons


def _run(command: list[str], seconds: float | None) -> int | str:
    """Return the command's status, or in words that it was ended; nothing that it started runs on."""
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    ) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {seconds} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


class Notes:
    """A plug-in that adds a line to a file when a test begins, and one when its outcome is known."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test begins."""
        self._note(nodeid, BEGUN, "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of a test; a failure behind its end counts."""
        if report.when == "call" or not report.passed:
            self._note(report.nodeid, report.outcome, "" if report.passed else _reason(report))

    def _note(self, test: str, outcome: str, reason: str) -> None:
        line = json.dumps([test.partition("::")[2], outcome, " ".join(reason.split())[:WORDS]])
        with self._path.open("a") as file:
            file.write(line + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says where to note outcomes."""
    parser.addoption("--notes", type=Path, help="file for outcomes, as they come")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to note them."""
    if config.getoption("--notes"):
        config.pluginmanager.register(Notes(config.getoption("--notes")))


def _reason(report: pytest.TestReport) -> str:
    """Return the error's text, or the reason for a skip."""
    told = report.longrepr
    if isinstance(told, tuple):
        return told[2]
    crash = getattr(told, "reprcrash", None)
    return crash.message if crash else str(told)
