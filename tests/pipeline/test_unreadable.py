"""A folder or file that may not be read is named as such: it is no fault of --out, and no damaged video."""

import shutil
from pathlib import Path

import pytest

import infer
import tune
from bench import __main__ as bench
from bench.judge import Judge
from bench.video_folders import videos_in
from engines import __main__ as engines
from engines.errors import Exit, InputError, entries_of
from finish.cover import videos_of
from pipeline.recipe import BASELINE
from pipeline.video.base_colours import as_base_videos
from pipeline.video.reader import colours_of


@pytest.fixture
def lock(monkeypatch):
    """A function that takes the right to list a folder or to open a file; root has them whatever the mode."""
    def take(path, name="iterdir"):
        was = getattr(Path, name)

        def refused(self, *arguments, **more):
            if self == path:
                raise PermissionError(13, "Permission denied", str(path))
            return was(self, *arguments, **more)
        monkeypatch.setattr(Path, name, refused)
        return path
    return take


@pytest.fixture
def data(make_data):
    """A data folder with base videos."""
    data = make_data({"a": 2})
    shutil.copytree(data / "videos", data / "outputs")
    return data


def test_videos_are_made_without_the_colours_of_base_videos_that_may_not_be_listed(
    data, lock, run_main, tmp_path, tiny_file):
    lock(data / "outputs")
    found = run_main(
        infer, "--generator", f"{tiny_file}:Tiny", "--data", data, "--out", tmp_path / "out")
    assert found.status == Exit.OK and (tmp_path / "out" / "a.mp4").is_file()
    assert (f"not as {data}/outputs: {data}/outputs cannot be listed (Permission denied); check permissions"
            in found.err)


@pytest.mark.parametrize("script", ["bench", "tune"])
def test_who_needs_the_base_videos_ends_as_for_an_input_and_blames_no_other_folder(
    data, lock, run_main, tmp_path, tiny_file, script):
    lock(data / "outputs")
    asked = ["--data", data, "--out", tmp_path / "o.toml", "--generator", f"{tiny_file}:Tiny"]
    asked += ["--candidate", data / "videos"] if script == "bench" else []
    found = run_main({"bench": bench, "tune": tune}[script], *asked)
    assert found.status == Exit.INPUT and "--out" not in found.err
    assert f"{data}/outputs cannot be listed (Permission denied); check permissions" in found.err


def test_the_doctor_says_so_too(data, lock, run_main):
    lock(data / "videos")
    found = run_main(engines, "doctor", "--data", data)
    assert found.status == Exit.INPUT and "videos cannot be listed (Permission denied)" in found.err


def test_a_base_video_that_may_not_be_read_is_no_damaged_one(data, lock):
    path, said = lock(data / "outputs" / "a.mp4", "open"), []
    why = "cannot be read \\(Permission denied\\); expected a video. Check permissions."
    with pytest.raises(InputError, match=why):
        colours_of(path)
    with pytest.raises(InputError, match=why):
        Judge([]).compare_files(path, data / "videos" / "a.mp4")
    assert as_base_videos(BASELINE, data, said.append) is BASELINE
    assert f"not as {path}: {path}: cannot be read (Permission denied)" in said[0]


def test_folders_of_videos_say_what_is_wrong_with_them(tmp_path, lock):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    lock(tmp_path / "folder")
    for find in (videos_in, lambda path: entries_of(path, "it should hold videos")):
        for name, why in (("file", "is no folder; it should hold videos"),
                          ("nothing", "does not exist; it should hold videos"),
                          ("folder", "cannot be listed \\(Permission denied\\); check permissions")):
            with pytest.raises(InputError, match=f"{name} {why}"):
                find(tmp_path / name)
    with pytest.raises(InputError, match="cannot be listed"):
        videos_of(tmp_path / "folder")


def test_a_data_folder_in_a_locked_one_is_an_unreadable_input(data, lock, run_main, tmp_path):
    lock(data, "is_dir")
    found = run_main(infer, "--data", data, "--out", tmp_path / "out", "--recipe", tmp_path / "x")
    assert found.status == Exit.INPUT
    assert f"{data}: cannot be read (Permission denied). Check permissions." in found.err
