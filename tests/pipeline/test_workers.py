"""Workers: what they make is what one process makes; those that die are replaced; nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.errors import EngineError, Exit
from engines.load import BACKENDS
from generators.generator_error import GeneratorError
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import Request, find_requests
from pipeline.batch.run_folder import MADE, RunFolder
from pipeline.parallel.cpu_affinity import shares_of_cores
from pipeline.parallel.worker import Refused, Started
from pipeline.parallel.worker_pool import _Pool, longest_first, run_workers
from pipeline.parallel.worker_process import PROGRAM
from pipeline.recipe import Recipe
from pipeline.runner import Settings, start_runner
from pipeline.video.mp4_boxes import frames_in_header
from tests.clips import make, run
from tests.misbehaving import BACKEND, SCRIPT, tell
from tests.processes import children_of, processes_about, wait_for

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(SCRIPT, Recipe("numpy", backend="onnxruntime"))


@pytest.fixture
def orders(tmp_path, monkeypatch):
    """The folder that tells the generator how to misbehave."""
    (folder := tmp_path / "orders").mkdir()
    monkeypatch.setenv("MISBEHAVE", str(folder))
    monkeypatch.setitem(BACKENDS, "onnxruntime", BACKEND)  # as loading the generator here does, for good
    return folder


@pytest.fixture
def pool(orders, tmp_path):
    """A function that makes a data folder's videos with workers: the jobs, and what was said."""
    def work(data, count=2, settings=SETTINGS):
        said, out = [], tmp_path / "out"
        with RunFolder(out) as folder:
            jobs = partial(Jobs, find_requests(data), folder, say=said.append)
            done = run_workers(settings, ["cpu"] * count, out, jobs, said.append)
        return done, said
    return work


def hashes(jobs):
    return {line["id"]: (line["frames_sha256"], line["output_sha256"]) for line in jobs.lines}


def test_workers_make_what_one_process_makes_and_keep_it(pool, make_data, orders, tmp_path):
    data = make_data({"a": 2, "b": 30, "c": 9})
    jobs, said = pool(data)
    assert jobs.status is Exit.OK
    assert {line["worker"] for line in jobs.lines} <= {"worker 1 on cpu", "worker 2 on cpu"}
    maker = start_runner(SETTINGS, print)
    with RunFolder(tmp_path / "here") as folder:
        here = Jobs(find_requests(data), folder, maker.identity, print)
        run_here(here, maker)
    assert hashes(here) == hashes(jobs)
    again, said = pool(data)
    assert again.todo == [] and said == ["3 of 3 videos were finished before and are kept"]


def test_a_folder_in_a_video_s_place_fails_that_video_alone(pool, make_data, tmp_path):
    (tmp_path / "out" / "b.mp4").mkdir(parents=True)
    jobs, said = pool(make_data({"a": 2, "b": 3, "c": 2}))
    assert jobs.status is Exit.SOME_FAILED and [line["status"] for line in jobs.lines].count("done") == 2
    place = tmp_path / "out" / "b.mp4"
    assert f"b: failed: {place}: cannot be written, there is a folder of that name. Rename it." in said


def test_what_a_worker_cannot_write_is_named_as_its_user_knows_it(pool, make_data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MADE).touch()  # where workers' videos would stay until they are taken
    jobs, said = pool(make_data({"a": 2}), 1)
    assert jobs.status is Exit.USAGE
    place = tmp_path / "out" / "a.mp4"
    assert any(text.startswith(f"a: failed: {place}: cannot be written (Not a directory)") for text in said)


def test_a_worker_that_is_killed_is_replaced_and_its_video_tried_once_more(pool, make_data, orders):
    tell(orders, "decode", 20, "kill-once")
    jobs, said = pool(make_data({"a": 2, "b": 20, "c": 3}))
    assert jobs.status is Exit.OK and len(jobs.lines) == 3
    note = [line["notes"][1:] for line in jobs.lines if line["id"] == "b"][0]  # the first: fit() leaves means
    assert len(note) == 1 and "was ended by SIGKILL while it made this video" in note[0]
    assert any(text.startswith("[2/3] b: worker ") and "tried once more" in text for text in said)


def test_a_worker_that_is_stopped_is_ended_and_its_video_tried_once_more(
        pool, make_data, orders, monkeypatch):
    monkeypatch.setattr("pipeline.parallel.worker_pool.STOPPED", 0.2)
    monkeypatch.setattr("pipeline.parallel.worker_pool.LOOK", 0.1)
    tell(orders, "decode", 20, "stop-once")
    jobs, said = pool(make_data({"a": 20, "b": 2}))
    assert jobs.status is Exit.OK and len(jobs.lines) == 2
    assert any("was stopped for 0.2 s and ended while it made this video; it is" in text for text in said)


@pytest.mark.parametrize(("what", "words", "reason"), [
    ("kill", "was ended by SIGKILL", Exit.EXHAUSTED),
    ("bug", "ended with status 1 (ZeroDivisionError: a bug (", Exit.BUG),
    ("broken", "failed (the GPU has fallen off the bus)", Exit.ENVIRONMENT)])
def test_a_video_whose_workers_die_twice_is_listed_and_the_others_are_made(
        pool, make_data, orders, tmp_path, what, words, reason):
    tell(orders, "decode", 20, what)
    jobs, _ = pool(make_data({"a": 2, "b": 20}))
    lines = {line["id"]: line for line in jobs.lines}
    assert jobs.status is Exit.SOME_FAILED and lines["a"]["status"] == "done"
    assert lines["b"]["error"].count(words) == 2 and lines["b"]["seed"] == 42
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "manifest.jsonl"]
    only, _ = pool(make_data({"b": 20}), 1)
    assert only.status is Exit.SOME_FAILED and [line.get("kept") for line in only.lines] == [True, None]


def test_a_video_that_breaks_the_contract_ends_the_run_as_in_one_process(
        pool, make_data, orders, tmp_path, capfd):
    tell(orders, "condition", 20, "contract")
    with pytest.raises(GeneratorError, match="^step_noise gives what is not like latents$") as raised:
        pool(make_data({"a": 20, "b": 2}))
    assert raised.value.exit is Exit.USAGE and "Traceback" not in capfd.readouterr().err
    assert processes_about(tmp_path) == []


def test_workers_that_cannot_start_end_the_run_with_their_own_error(pool, make_data, tmp_path):
    with pytest.raises(EngineError, match="^tensorrt runs on cuda, not on cpu"):
        pool(make_data({"a": 2, "b": 2}), settings=Settings(SCRIPT, Recipe("gpu", backend="tensorrt")))
    assert processes_about(tmp_path) == []


def test_a_worker_that_would_make_other_videos_is_refused(tmp_path):
    with RunFolder(tmp_path) as folder:
        jobs = Jobs(find_requests(ROOT / "data" / "sample"), folder, {"backend": "torch"}, print)
        jobs.check({"backend": "torch"}, "worker 2")
        with pytest.raises(EngineError, match='worker 2 would make other videos: backend was "torch" when'):
            jobs.check({"backend": "openvino"}, "worker 2")


def infer(data, out, *options):
    """infer.py with the misbehaving generator, started in the background."""
    command = [sys.executable, str(ROOT / "infer.py"), "--generator", SCRIPT, "--backend", "onnxruntime",
               "--data", str(data), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "status"), [
    (signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_ends_workers_and_their_ffmpeg_and_keeps_what_is_finished(
        make_data, orders, tmp_path, number, status):
    tell(orders, "decode", 20, "wait"), tell(orders, "decode", 21, "wait")
    data, out = make_data({"a": 20, "b": 21, "c": 2}), tmp_path / "out"
    with infer(data, out, "--workers", "2") as process:
        try:
            wait_for(lambda: len(list(orders.glob("ready-*"))) == 2 or process.poll() is not None)
            workers = children_of(process.pid)
            assert len(workers) == 2 and len(processes_about(out)) == 3  # infer.py, and two of ffmpeg
            began = time.monotonic()
            process.send_signal(number)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == status and time.monotonic() - began < 5
    wait_for(lambda: not processes_about(out) and not any(Path(f"/proc/{each}").exists() for each in workers))
    assert "Traceback" not in stderr
    for path in orders.iterdir():
        path.unlink()
    with infer(data, out, "--workers", "2", "--json") as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert sorted(json.loads(line)["id"] for line in stdout.splitlines()) == ["a", "b", "c"]
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "b.mp4", "c.mp4", "manifest.jsonl"]


# Shares and order


def test_cores_are_shared_out_and_each_worker_has_one_at_least(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5, 6})
    assert shares_of_cores(1) == [[0, 1, 2, 5, 6]] and shares_of_cores(2) == [[0, 1], [2, 5]]
    assert len(shares_of_cores(7)) == 7 and {len(share) for share in shares_of_cores(7)} == {1}


def test_a_worker_takes_its_cores_before_it_imports_anything_that_counts_them():
    core = shares_of_cores(1)[0][0]
    before = PROGRAM.partition("from {module} import")[0]
    program = before.format(cores=[core], root=str(ROOT))
    program += "import os; print(os.sched_getaffinity(0), 'numpy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.stdout == f"{ {core} } False\n", answer.stderr


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "fast.mp4"])
def test_a_header_names_the_frames(tmp_path, name):
    options = ["-movflags", "+faststart"] if name.startswith("fast") else []
    assert frames_in_header(make(tmp_path / name, *options, rate=25, seconds=2)) == 50


def test_a_header_that_names_no_frames_is_none(tmp_path, sound_only):
    for name, options in (("a.mkv", []), ("a.avi", []), ("b.mp4", ["-movflags", "frag_keyframe+empty_moov"])):
        assert frames_in_header(make(tmp_path / name, *options)) is None
    assert frames_in_header(sound_only(tmp_path / "c.mp4")) is None
    for text in (b"", b"hello", b"\0" * 100):
        (tmp_path / "d").write_bytes(text)
        assert frames_in_header(tmp_path / "d") is None


def test_sound_beside_the_picture_is_not_counted(tmp_path):
    run("-i", make(tmp_path / "a.mp4"), "-f", "lavfi", "-i", "sine=d=9", "-c:v", "copy", tmp_path / "b.mp4")
    assert frames_in_header(tmp_path / "b.mp4") == 24


def test_longest_first_by_frames_or_by_size_where_one_names_none(tmp_path):
    small = make(tmp_path / "small.mp4", seconds=3, source="color=red:")
    large = make(tmp_path / "large.mp4", "-crf", "1", seconds=1)
    other = make(tmp_path / "other.mkv", seconds=1)
    requests = {path.stem: Request(path.stem, path, path, 1) for path in (small, large, other)}
    assert [each.id for each in longest_first([requests["large"], requests["small"]])] == ["small", "large"]
    assert next(iter(longest_first(list(requests.values())))).id == "large"


@pytest.mark.parametrize(("lengths", "ends", "made"), [
    ((10, 9, 9, 9), "ABAB", "A10 B9 A9 B9"), ((10, 9, 1, 1, 1), "BBB", "A10 B9 B1 B1 B1"),
    ((10, 9, 7, 2, 1), "BBA", "A10 B7 B9 B2 A1")])
def test_a_worker_makes_what_it_has_read_unless_a_much_longer_video_waits(lengths, ends, made, tmp_path):
    """ends: which of two workers is free next, after both have been given their first."""
    requests = [Request(f"{length}", tmp_path, tmp_path, number) for number, length in enumerate(lengths)]
    pool, log = _Pool(SETTINGS, tmp_path, None, print), []
    pool._lengths = dict(zip(requests, lengths, strict=True))
    pool._queue.extend(requests)

    class Listed(SimpleNamespace):
        def give(self, request, upcoming):
            assert request is None or request is not upcoming
            log.append((self.name, request, self.upcoming))
            self.upcoming = upcoming

    pool._workers = [Listed(name="A", upcoming=None), Listed(name="B", upcoming=None)]
    by_name = {worker.name: worker for worker in pool._workers}
    for name in f"AB{ends}":
        pool._give(by_name[name])
    assert " ".join(f"{name}{request.id}" for name, request, _ in log if request) == made
    if lengths == (10, 9, 9, 9):  # all but the first two were read ahead by who made them
        assert [request is read for _, request, read in log] == [False, False, True, True, True, True]
    pool._give(by_name["A"])
    assert log[-1][1] is None or not pool._queue


def test_a_worker_that_cannot_start_when_all_is_made_does_not_fail_the_run(orders, tmp_path):
    said = []
    pool = _Pool(SETTINGS, tmp_path, lambda identity: SimpleNamespace(todo=[]), said.append)
    pool.start(late := SimpleNamespace(
        name="worker 2 on cuda:1", request=None, ready=False, end=lambda grace: (late.why, Exit.ENVIRONMENT)))
    pool._opened(SimpleNamespace(name="worker 1 on cuda:0"), Started({}, []))
    pool._heard(late, Refused(EngineError("CUDA out of memory")))
    pool._gone(late)
    assert said == ["worker 2 on cuda:1 cannot start (CUDA out of memory); going on without it"]
