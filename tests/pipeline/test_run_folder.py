"""A run's folder: what a later run believes of it, keeps of it and refuses; who may write to it."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import infer
from engines.errors import DiskError, Exit, OutputError
from pipeline.batch.run_folder import LOCK, MADE, MANIFEST, RunFolder, check_writable
from pipeline.recipe import Recipe
from pipeline.request import Options
from pipeline.runner import VideoRunner

HOLD = """
import sys, time
from pathlib import Path
from pipeline.batch.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def lines_of(folder):
    return [json.loads(line) for line in (folder / MANIFEST).read_text(encoding="utf-8").splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Going on


def test_the_same_again_keeps_what_is_finished(run, make_data, tmp_path):
    data = make_data({"a": 2, "b": 3})
    first, todo, _ = run(data)
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").iterdir())]
    again, rest, said = run(data)
    assert (todo, rest) == (["a", "b"], [])
    assert again.lines == [{**line, "kept": True} for line in first.lines] and again.status is Exit.OK
    assert said == ["2 of 2 videos were finished before and are kept"]
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").iterdir())] == times


def test_a_failed_video_is_tried_again_whatever_has_changed_about_it(run, make_data, tmp_path):
    data = make_data({"a": 2, "b": 2})
    good = (data / "videos" / "b.mp4").read_bytes()
    (data / "videos" / "b.mp4").write_text("not a video")
    assert run(data)[0].status is Exit.SOME_FAILED
    (data / "videos" / "b.mp4").write_bytes(good)
    jobs, todo, _ = run(data)
    assert todo == ["b"] and jobs.status is Exit.OK
    assert [(line["id"], line["status"]) for line in lines_of(tmp_path / "out")] == [
        ("a", "done"), ("b", "failed"), ("b", "done")]


@pytest.mark.parametrize("away", ["images/b.png", "videos/b.mp4"])
def test_a_finished_video_is_kept_when_its_input_was_away_for_a_run(run, make_data, tmp_path, away):
    """A share that is not mounted, a copy under way: the video, its inputs and settings are as they were."""
    data, out = make_data({"a": 2, "b": 2}), tmp_path / "out"
    first = run(data)[0].lines
    (data / away).rename(tmp_path / "away")
    jobs, todo, _ = run(data)
    assert todo == [] and jobs.status is Exit.SOME_FAILED
    assert [(line["id"], line["status"]) for line in lines_of(out)[2:]] == [("b", "failed")]
    (tmp_path / "away").rename(data / away)
    jobs, todo, said = run(data)
    assert todo == [] and said == ["2 of 2 videos were finished before and are kept"]
    kept = lines_of(out)[-1]  # who reads the last line of a video is told that it is there
    assert {**kept, "time": first[1]["time"]} == first[1]
    run(data)
    assert len(lines_of(out)) == 4


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"other")])
def test_a_finished_video_whose_file_is_another_is_made_again(run, make_data, tmp_path, spoil):
    data = make_data({"a": 2, "b": 2})
    whole = run(data)[0].lines[0]["output_sha256"]
    spoil(tmp_path / "out" / "a.mp4")
    jobs, todo, said = run(data)
    assert todo == ["a"]
    assert f"a: was finished, but {tmp_path}/out/a.mp4 is not that video any more" in said[0]
    assert [line["output_sha256"] for line in jobs.lines if line["id"] == "a"] == [whole]


def test_other_inputs_are_refused_by_name_and_made_with_restart(run, make_data, make_video_file, tmp_path):
    data = make_data({"a": 2, "b": 2})
    before = run(data)[0].lines
    make_video_file(data / "videos" / "b.mp4", 4)
    words = "made otherwise:\n  b: video_sha256 was .* when it was made, is .* here\n.*--restart"
    with pytest.raises(OutputError, match=words):
        run(data)
    assert lines_of(tmp_path / "out") == before
    with RunFolder(tmp_path / "out", restart=True) as folder:  # and the engines do not start
        assert folder.lines == {}
    assert lines_of(tmp_path / "out") == before, "what ended before its first video has lost nothing"
    jobs, todo, _ = run(data, restart=True)
    assert todo == ["a", "b"] and lines_of(tmp_path / "out") == jobs.lines
    with pytest.raises(OutputError, match="a: seed was 42 when it was made, is 7 here"):
        run(data, seed=7)


def test_videos_that_no_run_has_made_are_not_written_over(tiny_file, make_data, run_main):
    """A contest's data folder has its base demos in outputs/."""
    data = make_data({"a": 2, "b": 2})
    (data / "outputs").mkdir()
    (data / "outputs" / "b.mp4").write_bytes(b"theirs")
    given = "--generator", f"{tiny_file}:Tiny", "--data", data, "--out", data / "outputs"
    refused = run_main(infer, *given)
    assert refused.status == 2 and "has b.mp4, which no run of infer.py made" in refused.err
    assert [path.name for path in (data / "outputs").iterdir()] == ["b.mp4"]
    assert (data / "outputs" / "b.mp4").read_bytes() == b"theirs"
    assert run_main(infer, *given, "--restart").status == 0
    assert (data / "outputs" / "b.mp4").read_bytes() != b"theirs"


@pytest.mark.parametrize(("change", "text"), [
    ({"options": Options(Recipe("fast", preset="veryfast"))}, "recipe_sha256 was"),
    ({"options": Options(lossless=True)}, "lossless was false when it was made, is true here"),
    ({"ran_with": {"precision": {"denoise": "bf16"}}}, "precision was null"),
    ({"ran_with": {"device": "cuda:1"}}, 'device was null when it was made, is "cuda" here')])
def test_other_settings_are_refused_by_name(run, make_data, plain, change, text):
    data, generator = make_data({"a": 2}), plain()
    run(data)
    with pytest.raises(OutputError, match=text):
        run(data, VideoRunner(generator, generator.engines(), **change))


def test_another_gpu_another_name_of_the_recipe_and_build_seconds_are_no_difference(run, make_data, plain):
    data, generator = make_data({"a": 2}), plain()
    for device, name, seconds in (("cuda:0", "fast", 3.0), ("cuda:1", "fast2", None)):
        ran_with = {"device": device, "built": {"denoise": {"file": "d.onnx", "seconds": seconds}}}
        jobs, _, _ = run(data, VideoRunner(generator, generator.engines(), Options(Recipe(name)), ran_with))
    assert jobs.lines[0]["kept"]


def test_a_generator_of_other_code_is_another(plain, tmp_path):
    class Other(plain):
        fingerprint_files = (tmp_path / "weights",)

    (tmp_path / "weights").write_text("1")
    first = VideoRunner(Other(), {}).identity["generator_sha256"]
    (tmp_path / "weights").write_text("2, longer")
    assert len({first, VideoRunner(Other(), {}).identity["generator_sha256"],
                VideoRunner(plain(), {}).identity["generator_sha256"]}) == 3


# The manifest


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_a_line_that_was_cut_short_is_not_believed_and_only_its_video_is_made_again(
        run, make_data, tmp_path, keep):
    data = make_data({"a": 2, "b": 2})
    run(data)
    manifest = tmp_path / "out" / MANIFEST
    first, second = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(first + second[:keep])
    jobs, todo, _ = run(data)
    assert todo == ["b"] and jobs.status is Exit.OK
    assert [line["id"] for line in lines_of(tmp_path / "out")] == ["a", "b"]


@pytest.mark.parametrize("text", ["not JSON\n", "[1]\n", '{"id": "a"}\n'])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(OutputError, match=r"jsonl, line 1: is no line of a manifest .*; --restart begins"):
        RunFolder(tmp_path).__enter__()
    assert names(tmp_path) == [MANIFEST]
    with RunFolder(tmp_path, restart=True) as folder:
        assert folder.lines == {}


def test_a_manifest_that_cannot_grow_is_a_disk_error_with_the_line_cut_short_at_most(tmp_path):
    program = """
import resource, sys
from pathlib import Path
from engines.errors import DiskError
from pipeline.batch.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])) as folder:
    folder.record({"id": "a", "status": "failed"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        folder.record({"id": "b", "status": "failed", "text": "x" * 100})
    except DiskError as error:
        print(error)
"""
    answer = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert "cannot be written (File too large); make room, run again" in answer.stdout, answer.stderr
    with RunFolder(tmp_path) as folder:
        assert list(folder.lines) == ["a"]
        folder.record({"id": "b", "status": "failed"})
    assert [line["id"] for line in lines_of(tmp_path)] == ["a", "b"]
    assert issubclass(DiskError, OutputError)


# The lock


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_with_the_holder_and_free_when_it_is_killed(tmp_path, holder):
    words = f"is in use by process {holder.pid} on {socket.gethostname()}; wait for its end, or choose"
    with pytest.raises(OutputError, match=words):
        RunFolder(tmp_path).__enter__()
    assert LOCK in names(tmp_path)  # a refused run does not take it away
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert LOCK in names(tmp_path)
    with RunFolder(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert names(tmp_path) == [MANIFEST]


def test_of_many_that_come_at_once_one_at_a_time_has_the_folder(tmp_path):
    program = """
import os, sys, time
from pathlib import Path
from engines.errors import OutputError
from pipeline.batch.run_folder import RunFolder
until, held = time.monotonic() + 1, 0
while time.monotonic() < until:
    try:
        with RunFolder(Path(sys.argv[1])):
            held += 1
            os.close(os.open(Path(sys.argv[1], "alone"), os.O_CREAT | os.O_EXCL))
            os.unlink(Path(sys.argv[1], "alone"))
    except OutputError:
        pass
print(held)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate()[0] or -1) for process in processes]
    assert all(process.returncode == 0 for process in processes) and sum(counts) > 10
    assert names(tmp_path) == [MANIFEST]


def test_a_lock_whose_file_its_holder_has_just_removed_is_not_taken_for_one(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def flock(file, how):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(how)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunFolder(tmp_path):
        assert len(calls) == 2 and (tmp_path / LOCK).exists()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".a-0123abcd.tmp-77.mp4").touch()
    for name in (".a.mp4", "a-0123abcd.tmp-77.mp4", "b.mp4"):
        (tmp_path / name).touch()
    with RunFolder(tmp_path):
        assert names(tmp_path) == [".a.mp4", LOCK, "a-0123abcd.tmp-77.mp4", "b.mp4", MANIFEST]
        (tmp_path / ".b-0123abcd.tmp-78.mp4").touch()  # a worker's that is killed
    assert names(tmp_path) == [".a.mp4", "a-0123abcd.tmp-77.mp4", "b.mp4", MANIFEST]


def test_videos_of_other_processes_come_in_one_by_one_and_what_was_not_taken_is_no_video(tmp_path):
    with RunFolder(tmp_path) as folder:
        (tmp_path / MADE).mkdir()
        for name in ("a", "b"):
            (tmp_path / MADE / f"{name}.mp4").write_text(name)
        assert folder.take(tmp_path / MADE / "a.mp4").read_text() == "a"
        with pytest.raises(DiskError, match=r"c\.mp4: cannot be moved \(No such file.*\); run again"):
            folder.take(tmp_path / MADE / "c.mp4")
    assert names(tmp_path) == ["a.mp4", MANIFEST]


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match=f"cannot write to the output folder {out}: .*; choose another"):
            check_writable(out)


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "new" / "out")
    assert list((tmp_path / "new" / "out").iterdir()) == []
