"""What the GPU memory tests showed is kept when their time ends, and nothing of them runs on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.gpu import memory_tests
from lab.gpu.run import Place

ROOT = Path(__file__).parents[2]
TESTS = """
import pathlib, subprocess, sys, time
import pytest
pytestmark = pytest.mark.gpu

def test_right():
    pass

def test_wrong():
    assert 1 == 2, "what is wrong"

@pytest.mark.skip(reason="no driver")
def test_left_out():
    pass

@pytest.fixture
def broken():
    yield
    raise ValueError("behind its end")

def test_not_ended_well(broken):
    pass

def test_hung():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
    if pathlib.Path(__file__).with_name("hang").exists():
        time.sleep(600)
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A function that runs these tests as those of a GPU: what was emitted, and their child's number."""
    (tmp_path / "test_these.py").write_text(TESTS)
    monkeypatch.setattr(memory_tests, "TESTS", str(tmp_path / "test_these.py"))

    def run(seconds):
        monkeypatch.setattr(memory_tests, "TESTS_LIMIT", seconds)
        found = {}
        memory_tests.run_tests(Place("cuda", False, tmp_path), found.__setitem__)
        return found, int((tmp_path / "child").read_text())
    return run


def has_ended(number, within=10):
    """Whether a process is no more, or has ended and nobody has asked for its status."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_on_a_timeout_outcomes_are_kept_and_a_child_of_a_test_does_not_run_on(ran, tmp_path):
    (tmp_path / "hang").touch()
    found, child = ran(15)
    assert found["pytest"] == "ended after 15 s"
    assert found["counts"] == {"passed": 1, "failed": 2, "skipped": 1, memory_tests.BEGUN: 1}
    reasons = found["reasons"]
    assert "what is wrong" in reasons["test_wrong"] and reasons["test_left_out"] == "Skipped: no driver"
    assert "behind its end" in reasons["test_not_ended_well"]
    assert reasons["test_hung"] == memory_tests.BEGUN and "test_right" not in reasons
    assert has_ended(child)


def test_what_a_test_left_running_ends_with_the_tests(ran):
    found, child = ran(300)
    assert found["pytest"] == 1 and found["counts"] == {"passed": 2, "failed": 2, "skipped": 1}
    assert has_ended(child)


def test_tests_of_memory_are_collected_without_diffusers():
    program = ("import sys, pytest; sys.modules['diffusers'] = None\n"
               f"sys.exit(pytest.main(['-q', '--collect-only', '-m', 'gpu', {memory_tests.TESTS!r}]))")
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert answer.returncode == 0 and "test_infer_ends_with_status_8" in answer.stdout, answer.stdout
