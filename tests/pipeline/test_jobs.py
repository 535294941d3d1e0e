"""Many requests: a bad one is recorded and the others are still made; what the status says of the whole."""

import json
import os

import pytest

from engines.errors import Exit
from pipeline.batch.batch import Jobs, run_here, table
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import MANIFEST, RunFolder
from pipeline.runner import VideoRunner

MADE = {"id", "video", "image", "seed", "generator", "recipe", "status", "output", "frames", "fps", "size",
        "frames_sha256", "output_sha256", "video_sha256", "image_sha256", "notes", "seconds", "total_seconds",
        "peak_memory_mb", "first_frame_seconds", "time", "actions", "guard_fired", "generator_sha256",
        "recipe_sha256", "lossless", "chunks", "read_ahead_seconds"}


@pytest.fixture
def run(tmp_path, plain):
    """A function that makes a folder's videos with the NumPy generator: lines, status, what was said."""
    def make(data, generator=None):
        said, generator = [], generator or plain()
        maker = VideoRunner(generator, generator.engines())
        with RunFolder(tmp_path / "out") as folder:
            jobs = Jobs(find_requests(data, 42), folder, maker.identity, said.append)
            run_here(jobs, maker)
        return jobs.lines, jobs.status, said
    return make


def manifest(tmp_path):
    text = (tmp_path / "out" / MANIFEST).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_every_video_is_made_and_its_line_is_complete(run, make_data, tmp_path):
    data = make_data({"a": 2, "b": 3})
    lines, status, said = run(data)
    assert status is Exit.OK
    assert lines == manifest(tmp_path)  # what is returned is what is written, and it is JSON
    assert [set(line) for line in lines] == [MADE, MADE]
    assert [(line["id"], line["frames"], line["status"], line["seed"]) for line in lines] == [
        ("a", 2, "done", 42), ("b", 3, "done", 42)]
    assert lines[0]["output"] == str(tmp_path / "out" / "a.mp4") and lines[0]["generator"] == "plain"
    assert names(tmp_path) == ["a.mp4", "b.mp4", "manifest.jsonl"]
    assert [text.split(":")[0] for text in said if ": note: " not in text] == ["[1/2] a", "[2/2] b"]


def test_one_corrupt_video_of_three_does_not_stop_the_others(run, make_data, tmp_path):
    data = make_data({"a": 2, "b": 2, "c": 2})
    (data / "videos" / "b.mp4").write_bytes(b"\0" * 5000)
    lines, status, said = run(data)
    assert status is Exit.SOME_FAILED
    assert [line["status"] for line in manifest(tmp_path)] == ["done", "failed", "done"]
    assert f"{data}/videos/b.mp4: " in lines[1]["error"] and lines[1]["seed"] == 42
    assert f"b: failed: {lines[1]['error']}" in said
    assert names(tmp_path) == ["a.mp4", "c.mp4", "manifest.jsonl"]


def test_what_has_no_partner_is_a_failed_line(run, make_data, tmp_path):
    data = make_data({"a": 2, "b": 2})
    (data / "images" / "b.png").unlink()
    lines, status, _ = run(data)
    assert status is Exit.SOME_FAILED
    assert {line["id"]: line["status"] for line in lines} == {"a": "done", "b": "failed"}
    assert "has no image" in lines[0]["error"]


def test_if_no_video_can_be_made_the_status_is_their_common_reason(run, make_data):
    data = make_data({"a": 2, "b": 2})
    for path in (data / "videos").iterdir():
        path.write_text("not a video")
    assert run(data)[1] is Exit.INPUT


def test_if_memory_runs_out_everywhere_the_status_says_so(run, make_data, plain):
    class ArrayMemoryError(MemoryError):  # NumPy raises such a class of its own
        pass

    def decode(engines, latents):
        raise ArrayMemoryError("Unable to allocate 931 PiB")
        yield

    generator = plain()

    generator.decode = decode
    lines, status, _ = run(make_data({"a": 2}), generator)
    assert status is Exit.EXHAUSTED and "Unable to allocate" in lines[0]["error"]


def test_a_file_name_that_is_no_text_still_makes_a_valid_manifest_line(run, make_data, tmp_path):
    data = make_data({"a": 2})
    for part, suffix in (("videos", "mp4"), ("images", "png")):
        (data / part / f"a.{suffix}").rename(data / part / os.fsdecode(b"\xff." + suffix.encode()))
    lines, status, _ = run(data)
    assert status is Exit.OK and manifest(tmp_path) == lines and lines[0]["id"] == "\udcff"


@pytest.mark.parametrize(("others", "expected"), [({}, Exit.INPUT), ({"c": 1}, Exit.SOME_FAILED)])
def test_different_reasons_are_some_failed_if_a_video_was_made_else_the_lowest(
        run, make_data, plain, others, expected):
    generator, data = plain(), make_data({"a": 2, "b": 2, **others})
    (data / "videos" / "a.mp4").write_text("not a video")
    decode = generator.decode

    def decode_one(engines, latents):
        if latents.shape[1] > 1:
            raise MemoryError
        yield from decode(engines, latents)

    generator.decode = decode_one
    lines, status, _ = run(data, generator)
    assert status is expected and lines[1]["error"] == "MemoryError"
    assert [line["status"] for line in lines] == ["failed", "failed", *["done"] * len(others)]


def test_a_bug_is_not_taken_for_a_bad_input(run, make_data, plain):
    generator = plain()
    generator.flow = lambda *arguments: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(make_data({"a": 2}), generator)


@pytest.mark.parametrize("spoil", ["text", "empty", "folder"])
def test_a_picture_that_is_none_fails_its_request(run, make_data, spoil):
    data = make_data({"a": 2, "b": 2})
    image = data / "images" / "a.png"
    image.unlink()
    if spoil == "folder":
        image.mkdir()
    else:
        image.write_text("hello" if spoil == "text" else "")
    lines, status, _ = run(data)
    assert status is Exit.SOME_FAILED and [line["status"] for line in lines] == ["failed", "done"]
    assert lines[0]["error"].startswith(f"{image}: is ")


def test_sound_without_picture_and_empty_files_fail_their_requests(run, make_data, sound_only):
    data = make_data({"a": 2, "b": 2, "c": 2})
    sound_only(data / "videos" / "a.mp4")
    (data / "videos" / "b.mp4").write_bytes(b"")
    lines, status, _ = run(data)
    assert status is Exit.SOME_FAILED and [line["status"] for line in lines] == ["failed", "failed", "done"]
    assert "a.mp4" in lines[0]["error"] and "video" in lines[0]["error"]
    assert "b.mp4: is empty (0 bytes)" in lines[1]["error"]


def test_names_of_any_script_come_through(run, make_data, tmp_path):
    lines, status, _ = run(make_data({"跳舞 Łódź": 2}))
    assert status is Exit.OK and names(tmp_path) == ["manifest.jsonl", "跳舞 Łódź.mp4"]
    assert "跳舞" in (tmp_path / "out" / MANIFEST).read_text(encoding="utf-8")


def test_the_table_sums_up_by_worker_and_names_what_failed():
    done = {"status": "done", "frames": 10, "total_seconds": 1.5}
    lines = [{**done, "id": "a", "worker": "worker 1 on cpu"},
             {**done, "id": "b", "worker": "worker 2 on cpu"},
             {**done, "id": "c", "worker": "worker 1 on cpu", "kept": True}, {"id": "d", "status": "failed"},
             {**done, "id": "e", "worker": "worker 2 on cpu"}]
    rows = [row.split() for row in table(lines)]
    assert rows == [["videos", "frames", "seconds"], ["kept", "1", "10", "1.5"],
                    ["worker", "1", "on", "cpu", "1", "10", "1.5"],
                    ["worker", "2", "on", "cpu", "2", "20", "3.0"],
                    ["failed:", "d;", "the", "manifest", "says", "why"]]


def test_many_failures_are_cut_short_in_the_table():
    (row,) = table({"id": str(number), "status": "failed"} for number in range(10))
    assert row == "failed: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more; the manifest says why"
