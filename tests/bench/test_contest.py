"""One timed run of infer.py: how its failures are explained, how it is stopped, and a real one."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.timed_run import Ended, Job, RunFailed, run_script, start_process, watching_gpu
from bench.timing import time_recipes
from engines.errors import Exit
from pipeline.recipe import Recipe

BASE = Recipe("baseline")
# Loaded by processes of infer.py alone, which so import no torch for what the base model runs on.
ALONE = """
from engines import load
from tests.misbehaving import BACKEND, Misbehaving

load.BACKENDS["torch"] = BACKEND
"""


def python(program, log, *arguments):
    return start_process([sys.executable, "-c", program, *map(str, arguments)], log)


def answered(tmp_path, status, stdout, said=""):
    """run_script where the process ended in that way."""
    def start(command, log):
        log.write_text(said)
        return Ended(status, 2.0, stdout)
    return run_script(BASE, Job(tmp_path, tmp_path), tmp_path, tmp_path / "run", start)


LINE = json.dumps({"id": "a", "status": "done"})
BAD = json.dumps({"id": "b", "status": "failed", "error": "no"})


def test_videos_that_were_made_count_and_the_others_have_their_reason(tmp_path):
    outcome = answered(tmp_path, Exit.SOME_FAILED, f"{LINE}\n{BAD}\n")
    assert outcome.seconds == 2.0 and list(outcome.made) == ["a"] and outcome.failed == {"b": "no"}


def test_the_folder_of_a_run_is_empty_before_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.mp4").touch()
    answered(tmp_path, 0, LINE)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["baseline.toml", "infer.log"]


@pytest.mark.parametrize(("status", "stdout", "shown", "ending"), [
    (4, "", Exit.ENVIRONMENT, "ended with status 4"), (3, BAD, Exit.INPUT, "ended with status 3"),
    (7, BAD, Exit.SOME_FAILED, "ended with status 7"), (0, "", Exit.BUG, "made no video"),
    (1, "", Exit.BUG, "ended with status 1"), (-9, "", Exit.BUG, "was ended by SIGKILL"),
])
def test_a_run_without_videos_fails_with_its_status_and_its_last_words(
        tmp_path, status, stdout, shown, ending):
    with pytest.raises(RunFailed) as failure:
        answered(tmp_path, status, stdout, "".join(f"message {i}\n" for i in range(30)))
    last = "\n".join(f"  message {i}" for i in range(18, 30))
    assert str(failure.value) == f"baseline: infer.py {ending}:\n{last}" and failure.value.exit is shown


@pytest.mark.parametrize("text", ["loaded!", "0.5"])
def test_a_generator_that_prints_is_told_so(tmp_path, text):
    with pytest.raises(RunFailed, match=f"baseline: '{text}' is among the manifest lines"):
        answered(tmp_path, 0, f"{LINE}\n{text}\n")


# Processes


def test_a_process_is_timed_and_may_say_more_than_a_pipe_holds(tmp_path):
    program = "import sys, time; time.sleep(0.3); sys.stderr.write('x' * 300_000); print('y' * 300_000)"
    ended = python(program, tmp_path / "log")
    assert (ended.status, ended.stdout) == (0, "y" * 300_000 + "\n") and 0.3 < ended.seconds < 60
    assert (tmp_path / "log").read_text() == "x" * 300_000


def test_a_name_that_is_no_text_is_printed_as_json_can_hold_it(tmp_path):
    ended = python("import sys; sys.exit(print(chr(0xdcff) + 'ż') or 5)", tmp_path / "log")
    assert (ended.status, ended.stdout) == (5, "\\udcffż\n")


def test_ctrl_c_ends_the_process_kindly_before_it_is_passed_on(tmp_path, monkeypatch):
    program = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path(sys.argv[1], "cleaned").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""
    def interrupt():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run may be deaf to it
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            python(program, tmp_path / "log", tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert (tmp_path / "cleaned").exists()


NVIDIA_SMI = """#!{python}
import pathlib, sys
calls = pathlib.Path({calls!r})
with calls.open("a") as file:
    print(*sys.argv[1:], file=file)
print({answers}[min(len(calls.read_text().splitlines()), 3) - 1])
"""


def watched(tmp_path, monkeypatch, answers, device="cuda:1"):
    """Samples of a block that ends after three, from a stand-in for nvidia-smi; and how it was called."""
    calls, tool = tmp_path / "calls", tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI.format(python=sys.executable, calls=str(calls), answers=answers))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with watching_gpu(device) as samples:
        until = time.monotonic() + 20
        while calls.exists() and len(calls.read_text().splitlines()) < 4 and time.monotonic() < until:
            time.sleep(0.05)
    return samples, calls.read_text().splitlines() if calls.exists() else []


def test_a_gpus_memory_is_sampled_from_before_the_block_to_its_end(tmp_path, monkeypatch):
    samples, calls = watched(tmp_path, monkeypatch, [500, 9500, 700])
    assert samples[:3] == [500, 9500, 700]
    assert calls[0] == "--query-gpu=memory.used --format=csv,noheader,nounits --id=1"


def test_without_a_gpu_to_ask_there_are_no_samples(tmp_path, monkeypatch):
    assert watched(tmp_path, monkeypatch, ["[N/A]"] * 3)[0] == []
    (tmp_path / "calls").unlink()
    assert watched(tmp_path, monkeypatch, [1, 2, 3], "cpu") == ([], [])
    (tmp_path / "nvidia-smi").unlink()
    with watching_gpu("cuda") as samples:
        pass
    assert samples == []


@pytest.mark.slow
def test_a_real_run_of_a_generator_in_numpy_on_a_busy_machine(make_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MISBEHAVE", str(tmp_path))  # it does not
    (tmp_path / "alone.py").write_text(ALONE)
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0 * os.cpu_count(), 0.0, 0.0))
    data, said = make_data({"a": 2}), []
    job = Job(data, tmp_path / "out", f"{tmp_path / 'alone.py'}:Misbehaving", rounds=1)
    (run,) = time_recipes([], job, said.append)
    timing = run["timing"]
    assert run["nondeterministic"] == [] and run["failed"] == {} and run["backend"] == "torch"
    assert timing["cold_start"] > 0 and timing["stages"]["denoise"] > 0 <= timing["stages"]["other"]
    total = sum(timing["stages"].values())
    assert total == pytest.approx(timing["seconds_per_video"]["p50"], abs=1e-3)
    assert timing["script_seconds"][0] == pytest.approx(total + timing["cold_start"], abs=1e-3)
    assert sorted(path.name for path in Path(run["folder"]).iterdir()) == [
        "a.mp4", "baseline.toml", "infer.log", "manifest.jsonl"]
    assert len(said) == 5 and "other programs are running" in said[0]
