"""A process's peak memory is its own, not that of the one that started it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engines import progress

ROOT = Path(__file__).resolve().parents[2]
TELL = "from engines.progress import peak_memory_mb; print(peak_memory_mb(), flush=True)"
PARENT = f"""
import subprocess, sys
held = b"x" * (256 << 20)
{TELL}
subprocess.run([sys.executable, "-c", {TELL!r}], check=True)
"""


@pytest.mark.skipif(not progress.STATUS.is_file(), reason="only Linux hands a peak on, and tells one's own")
def test_a_child_does_not_report_the_peak_of_the_process_that_started_it():
    command = [sys.executable, "-c", PARENT]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    parent, child = map(int, answer.stdout.split())
    assert parent > 256 and 1 < child < 128


@pytest.mark.parametrize(("platform", "told"), [("darwin", 300 << 20), ("freebsd14", 300 << 10)])
def test_other_systems_are_asked_by_getrusage_in_their_own_unit(monkeypatch, tmp_path, platform, told):
    monkeypatch.setattr(progress, "STATUS", tmp_path / "none")
    monkeypatch.setattr(progress.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: type("", (), {"ru_maxrss": told}))
    assert progress.peak_memory_mb() == 300
