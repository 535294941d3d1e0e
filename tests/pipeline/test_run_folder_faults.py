"""A run's folder in bad hands: links and pipes in its place, a folder that goes, manifests of other types."""

import json
import os
import re
import shutil

import pytest

from engines.errors import DiskError, Exit, OutputError
from pipeline.batch.run_folder import LOCK, MADE, MANIFEST, RunFolder
from pipeline.runner import VideoRunner
from tests.pipeline.test_run_folder import lines_of, names


@pytest.mark.parametrize("name", [LOCK, MANIFEST])
@pytest.mark.parametrize("put", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_file_of_its_own_is_refused_and_what_it_leads_to_left_alone(tmp_path, name, put):
    (out := tmp_path / "out").mkdir()
    (precious := tmp_path / "precious").write_text("precious")
    if put == "pipe":
        os.mkfifo(out / name)
    elif put == "folder":
        (out / name).mkdir()
    else:
        (out / name).symlink_to(precious if put == "link" else tmp_path / "made")
    why = "it is a link|Is a directory|No such device|regular"
    with pytest.raises(OutputError, match=rf"{re.escape(name)}.*({why})"):
        RunFolder(out, restart=True).__enter__()
    assert precious.read_text() == "precious" and not (tmp_path / "made").exists()


def test_workers_videos_go_through_no_link(tmp_path):
    (other := tmp_path / "other").mkdir()
    (other / "a.mp4").touch()
    (out := tmp_path / "out").mkdir()
    (out / MADE).symlink_to(other)
    with RunFolder(out):
        assert not (out / MADE).exists()
    assert names(other) == ["a.mp4"]


def test_a_folder_that_is_removed_ends_the_run_as_a_disk_error(run, make_data, tmp_path, plain):
    generator = plain()
    maker = VideoRunner(generator, generator.engines())

    def removing(request, out, progress, **more):
        result = maker(request, out, progress, **more)
        shutil.rmtree(out)
        return result

    removing.identity, removing.close = maker.identity, maker.close
    with pytest.raises(DiskError, match=r"manifest\.jsonl: was removed or replaced while this run wrote"):
        run(make_data({"a": 2, "b": 2}), removing)
    assert not (tmp_path / "out").exists()


def test_a_finished_video_whose_input_cannot_be_read_any_more_fails_alone(run, make_data, tmp_path):
    data = make_data({"a": 2, "b": 2, "c": 2})
    (data / "pairs.csv").write_text("id,video,image\n" + "".join(f"{n},{n}.mp4,{n}.png\n" for n in "abc"))
    run(data)
    (data / "videos" / "a.mp4").write_bytes(b"")
    (tmp_path / "out" / "b.mp4").unlink()
    jobs, todo, _ = run(data)
    assert todo == ["b"] and jobs.status is Exit.SOME_FAILED
    assert {line["id"]: line["status"] for line in jobs.lines} == {"a": "failed", "b": "done", "c": "done"}


def test_what_is_not_taken_has_a_line_once_and_is_no_failure(run, make_data, tmp_path):
    data = make_data({"a": 2})
    (data / "videos" / "frames").mkdir()
    for _ in range(2):
        jobs, _, said = run(data)
        assert jobs.status is Exit.OK and [line["id"] for line in jobs.lines] == ["a"]
        assert f"note: {data}/videos/frames is a folder and not taken; make a file of it" in said
    assert [(line["id"], line["status"]) for line in lines_of(tmp_path / "out")] == [
        ("videos/frames", "ignored"), ("a", "done")]


@pytest.mark.parametrize("changed", [
    {"id": 3}, {"frames": "2"}, {"output_sha256": None}, {"total_seconds": "x"}, {"total_seconds": 10**400},
    {"frames": 10**400}, {"total_seconds": float("nan")}])
def test_a_line_of_other_types_is_refused_by_name(run, make_data, tmp_path, changed):
    data = make_data({"a": 2})
    run(data)
    line = {**lines_of(tmp_path / "out")[0], **changed}
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(line) + "\n")
    with pytest.raises(OutputError, match=f"line 1: is no line of a manifest .*{next(iter(changed))} is"):
        run(data)
    (tmp_path / "out" / MANIFEST).write_text("[" * 100_000 + "\n")
    with pytest.raises(OutputError, match="line 1: is no line of a manifest"):
        run(data)
