"""An output folder in which a run's videos would take the place of inputs or of others' videos is refused."""

import os
import re
import shutil

import pytest

import infer
from engines.errors import Exit, FolderError
from pipeline.batch.dataset import find_requests
from pipeline.batch.overwriting import check_ours
from pipeline.batch.run_folder import MANIFEST


@pytest.fixture
def infer_to(tiny_file, run_main):
    """A function that runs infer.py from one folder into another."""
    return lambda data, out, *more: run_main(
        infer, "--generator", f"{tiny_file}:Tiny", "--data", data, "--out", out, *more)


def check(data, out, restart=False):
    check_ours(out, data, find_requests(data).requests, restart)


def refused(data, out, why, restart=True):
    with pytest.raises(FolderError, match=re.escape(why)):
        check(data, out, restart)


@pytest.mark.parametrize("name", ["ada.mp4", "ada.MP4", "ada.mov"])
@pytest.mark.parametrize("more", [[], ["--restart"]])
def test_skeletons_are_never_written_over_nor_joined_by_outputs(make_data, infer_to, name, more):
    data = make_data({"ada": 2})
    (data / "videos" / "ada.mp4").rename(data / "videos" / name)
    before = (data / "videos" / name).read_bytes()
    found = infer_to(data, data / "videos", *more)
    assert found.status == Exit.USAGE
    assert f"{data}/videos holds this run's inputs" in found.err
    assert [path.name for path in (data / "videos").iterdir()] == [name]
    assert (data / "videos" / name).read_bytes() == before


def test_a_folder_of_inputs_is_known_by_every_path(make_data, tmp_path):
    data = make_data({"ada": 2})
    (tmp_path / "link").symlink_to(data / "videos")
    for out in (data / "images", data / "outputs" / ".." / "videos", tmp_path / "link"):
        (data / "outputs").mkdir(exist_ok=True)
        refused(data, out, "holds this run's inputs")
    for out in (data / "videos" / "made", data, data / "new", tmp_path / "out"):
        check(data, out)


def test_inputs_that_a_list_names_elsewhere_are_kept_too(make_data, tmp_path):
    data = make_data({"ada": 2})
    (clips := tmp_path / "clips").mkdir()
    shutil.copy(data / "videos" / "ada.mp4", clips / "eve.mp4")
    (data / "pairs.csv").write_text(f"id,video,image\neve,{clips}/eve.mp4,ada.png\nbob,ada.mp4,ada.png\n")
    refused(data, clips, f"{clips}/eve.mp4 is an input, and would be written over")
    (data / "pairs.csv").write_text(f"id,video,image\nbob,{clips}/eve.mp4,ada.png\n")
    check(data, clips)
    os.link(clips / "eve.mp4", clips / "bob.mp4")
    refused(data, clips, f"{clips}/bob.mp4 is an input")


@pytest.mark.parametrize("name", ["ada.MP4", "ada.mkv"])
def test_a_base_demo_gets_no_twin_that_nobody_could_judge_by(make_data, infer_to, name):
    data = make_data({"ada": 2})
    (data / "outputs").mkdir()
    (data / "outputs" / name).write_bytes(b"theirs")
    for more in ([], ["--restart"]):
        found = infer_to(data, data / "outputs", *more)
        assert found.status == Exit.USAGE and f"outputs has {name}, beside which there would be" in found.err
    (data / "outputs" / MANIFEST).touch()  # nor where a run has been before
    assert infer_to(data, data / "outputs").status == Exit.USAGE
    assert (data / "outputs" / name).read_bytes() == b"theirs"


def test_elsewhere_a_twin_stays_only_with_restart(make_data, tmp_path):
    data, out = make_data({"ada": 2}), tmp_path / "out"
    out.mkdir()
    for name in ("ada.webm", ".ada.mov", "ada.png", "eve.mp4"):
        (out / name).touch()
    refused(data, out, f"{out} has ada.webm, beside which", restart=False)
    check(data, out, restart=True)
    (out / "ada.webm").unlink()
    check(data, out)


def test_names_are_one_however_their_accents_are_stored(make_data):
    data = make_data({"\u00e9": 2})
    (data / "outputs").mkdir()
    (data / "outputs" / "e\u0301.mp4").touch()
    refused(data, data / "outputs", "beside which there would be a second video of the same name")


def test_base_demos_are_made_kept_and_made_again(make_data, infer_to):
    data = make_data({"ada": 2})
    for more in ([], [], ["--restart"]):
        assert infer_to(data, data / "outputs", *more).status == Exit.OK
    assert sorted(path.name for path in (data / "outputs").iterdir()) == ["ada.mp4", MANIFEST]
