"""Faults of whole runs: kills, full disks, two at once, networks and environments that are not there."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines.errors import Exit
from tests.clips import hidden_files, told
from tests.fault_counts import figure, times
from tests.misbehaving import SCRIPT, tell
from tests.processes import heed_interrupts, processes_about, wait_for

ROOT = Path(__file__).resolve().parent.parent
GRACE = 5.0  # seconds in which a signal ends a run


@pytest.fixture
def orders(tmp_path, monkeypatch):
    """The folder that tells the generator how to misbehave."""
    (folder := tmp_path / "orders").mkdir()
    monkeypatch.setenv("MISBEHAVE", str(folder))
    return folder


def start(data, out, *options, **how):
    """infer.py in the background, with a generator in NumPy alone."""
    command = [sys.executable, str(ROOT / "infer.py"), "--generator", SCRIPT, "--backend", "onnxruntime",
               "--data", str(data), "--out", str(out), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, **{"text": True, "preexec_fn": heed_interrupts, **pipes, **how})


def finish(process, seconds=120):
    """The lines on stdout, the status and what was said of a process that ends by itself."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        finally:
            process.kill()
    return [json.loads(line) for line in stdout.splitlines()], process.returncode, stderr


def hashes(lines):
    return {line["id"]: (line["frames_sha256"], line["output_sha256"]) for line in lines}


def recorded(out):
    """The lines of a manifest that are whole."""
    manifest = out / "manifest.jsonl"
    return [json.loads(line) for line in manifest.read_text().splitlines(keepends=True)
            if line.endswith("\n")] if manifest.exists() else []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_at_random_times_a_run_goes_on_to_the_same_videos(make_data, orders, tmp_path, workers):
    data = make_data({name: 12 + 9 * number for number, name in enumerate("abcde")})
    began = time.monotonic()
    unbroken, status, _ = finish(start(data, tmp_path / "unbroken", "--json"))
    took, draws = time.monotonic() - began, random.Random(int(workers))
    assert status == 0
    redone, kills = [], times(2, 10)  # with one worker and with two
    for kill in range(kills):
        out = tmp_path / f"killed {kill}"
        with start(data, out, "--workers", workers, stdout=subprocess.DEVNULL) as process:
            time.sleep(draws.uniform(0.1, took))
            process.kill()
        wait_for(lambda out=out: not processes_about(out))
        finished = {path.stem for path in out.glob("[!.]*.mp4")}
        lines, status, said = finish(start(data, out, "--workers", workers, "--json"))
        assert status == 0, said
        assert hashes(lines) == hashes(unbroken) and hidden_files(out) == []
        kept = {line["id"] for line in lines if line.get("kept")}
        redone.append(len(finished - kept))
        assert kept <= finished and len(finished) < len(unbroken) + 1
    assert max(redone) <= 1
    figure(f"F01: {workers} worker(s): {kills} kills, {kills} resumes, finished videos made again: at most "
           f"{max(redone)}, {sum(redone)} in all; all hashes those of the unbroken run")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_in_time_while_an_engine_computes(make_data, orders, tmp_path, number, status):
    tell(orders, "step", 20, "busy")
    data, out = make_data({"a": 2, "b": 20}), tmp_path / "out"
    with start(data, out) as process:
        wait_for(lambda: list(orders.glob("ready-*")) or process.poll() is not None)
        began = time.monotonic()
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
    seconds = time.monotonic() - began
    assert process.returncode == status and seconds < GRACE + 1, stderr  # of a loaded machine
    assert (out / "a.mp4").exists() and not (out / "b.mp4").exists()
    wait_for(lambda: not processes_about(out), 5)
    name = signal.Signals(number).name
    figure(f"F02: {name} during one long computation: {seconds:.1f} s to the end, no process left")


def test_a_disk_that_fills_leaves_the_old_file_and_no_part(make_data, orders, tmp_path):
    data, out = make_data({"a": 60}), tmp_path / "out"
    lines, status, _ = finish(start(data, out, "--json"))
    size, old = (out / "a.mp4").stat().st_size, (out / "a.mp4").read_bytes()
    offsets = [size * (number + 1) // (times(2, 10) + 1) for number in range(times(2, 10))]
    for most in offsets:
        def limit(most=most):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        _, status, said = finish(start(data, out, "--restart", "--lossless", preexec_fn=limit))
        assert status == Exit.EXHAUSTED and re.search("a.mp4: .*writing failed|manifest.jsonl: cannot", said)
        assert (out / "a.mp4").read_bytes() == old and hidden_files(out) == []
    figure(f"F03: {len(offsets)} offsets from {offsets[0]} to {offsets[-1]} bytes: status 8, old file intact")


@pytest.mark.parametrize(("what", "status"), [("ffmpeg-once", Exit.OK), ("ffmpeg", Exit.SOME_FAILED)])
def test_a_video_whose_encoder_is_killed_is_made_once_more(make_data, orders, tmp_path, what, status):
    tell(orders, "decode", 40, what)
    data, out = make_data({"a": 2, "b": 40}), tmp_path / "out"
    (a, b), ended, _ = finish(start(data, out, "--json"))
    assert ended == status and a["status"] == "done" and hidden_files(out) == []
    if status is Exit.OK:
        assert re.match("made at the second try, because .*SIGKILL", told(b["notes"])[0])
    else:
        assert "SIGKILL" in b["error"]


def test_another_run_on_the_same_folder_is_locked_out(make_data, orders, tmp_path):
    tell(orders, "decode", 20, "wait")
    data, out = make_data({"b": 20}), tmp_path / "out"
    first = start(data, out, "--json")
    wait_for(lambda: list(orders.glob("ready-*")) or first.poll() is not None)
    others = [finish(start(data, out)) for _ in range(times(1, 5))]
    figure(f"F21: {len(others)} more runs on a folder in use: all refused, the first one finished")
    for path in orders.iterdir():
        path.unlink()
    (line,), status, _ = finish(first)
    assert status == 0 and line["status"] == "done"
    for lines, status, said in others:
        assert status == Exit.USAGE and not lines and f"is in use by process {first.pid} on " in said


def test_another_configuration_is_refused_with_the_difference(make_data, orders, tmp_path):
    data, out = make_data({"a": 2}), tmp_path / "out"
    assert finish(start(data, out))[1] == 0
    _, status, said = finish(start(data, out, "--lossless", "--seed", "7"))
    assert status == Exit.USAGE
    assert "lossless was false when it was made, is true here" in said
    assert "a: seed was 42 when it was made, is 7 here" in said and "--restart" in said


def test_a_step_that_is_not_finite_fails_its_video_alone(make_data, orders, tmp_path):
    tell(orders, "step", 20, "nan"), tell(orders, "step", 21, "inf")
    lines, status, _ = finish(start(make_data({"a": 2, "b": 20, "c": 21}), tmp_path / "out", "--json"))
    assert status == Exit.SOME_FAILED and [line["status"] for line in lines] == ["done", "failed", "failed"]
    assert all("step 2 of 3 gave numbers that are not finite" in line["error"] for line in lines[1:])


NO_NETWORK = """
import runpy, sys
def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_run_needs_no_network(make_data, tmp_path):
    command = [sys.executable, "-c", NO_NETWORK, str(ROOT / "infer.py"), "--data", str(make_data({"a": 2})),
               "--generator", f"{ROOT}/examples/my_generator.py:MyGenerator", "--out", str(tmp_path / "out")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0 and (tmp_path / "out" / "a.mp4").exists(), answer.stderr


def test_a_bare_environment_makes_no_difference(make_data, orders, tmp_path):
    data = make_data({"跳舞 1": 9})
    bare = {"PATH": os.environ["PATH"], "LANG": "C", "LC_ALL": "C", "NO_COLOR": "1", "MISBEHAVE": str(orders)}
    usual, _, _ = finish(start(data, tmp_path / "usual", "--json"))
    (line,), status, said = finish(start(data, tmp_path / "bare", "--json", env=bare, cwd="/"))
    assert status == 0 and hashes([line]) == hashes(usual) and "\x1b" not in said and "\r" not in said


def test_the_order_of_videos_makes_no_difference(make_data, orders, tmp_path):
    data = make_data({"a": 20, "b": 9, "c": 17})
    made = []
    for order in ("abc", "cab"):
        rows = "".join(f"{name},{name}.mp4,{name}.png\n" for name in order)
        (data / "pairs.csv").write_text(f"id,video,image\n{rows}")
        made.append(finish(start(data, tmp_path / order, "--json"))[0])
    assert [line["id"] for line in made[1]] == ["c", "a", "b"] and hashes(made[0]) == hashes(made[1])
