"""Data folders of trials have all that the given one has, wherever it lies; copies can be written to."""

import os
import random

import pytest

from engines.errors import InputError
from pipeline.batch.dataset import find_requests
from submit.trial_data import copy_without_outputs, make_unseen


@pytest.fixture
def data(tmp_path, make_data, make_video_file, make_image_file):
    """Pairs of files in subfolders of equal names, and of files elsewhere; with two pictures each."""
    folder = make_data({"c": 2})
    for name in ("one", "two"):
        make_video_file(folder / "videos" / name / "ada.mp4", 2)
        make_image_file(folder / "images" / name / "face.png", (64 if name == "one" else 32, 96))
    elsewhere = make_video_file(tmp_path / "elsewhere" / "ada.mp4", 3)
    make_image_file(folder / "faces" / "face.png", (16, 96))
    (folder / "pairs.csv").write_text(
        "id,video,image,image2,mood\na,one/ada.mp4,one/face.png,two/face.png,glad\n"
        f"b,two/ada.mp4,two/face.png,one/face.png,\nc,{elsewhere},../faces/face.png,c.png,\n")
    return folder


def described(folder):
    """What requests are asked to make, by their contents."""
    return {each.id: (each.hashes(), each.seed, each.columns) for each in find_requests(folder).requests}


def test_a_copy_asks_for_the_same_videos_and_stands_alone(data, tmp_path):
    given = described(data)
    assert given.keys() == {"a", "b", "c"} and len({str(each) for each in given.values()}) == 3
    requests = copy_without_outputs(data, tmp_path / "copy")
    data.rename(tmp_path / "gone")
    (tmp_path / "elsewhere").rename(tmp_path / "gone too")
    assert described(tmp_path / "copy") == given and find_requests(tmp_path / "copy").requests == requests
    listed = "id,video,image\nc,c.mp4,c.png\n"
    (tmp_path / "gone" / "pairs.csv").write_text(listed)
    copy_without_outputs(tmp_path / "gone", tmp_path / "plain")
    assert (tmp_path / "plain" / "pairs.csv").read_text() == listed


def test_unseen_videos_have_the_pictures_of_those_that_they_are_made_of(data, tmp_path):
    given = described(data)
    unseen = make_unseen(data, tmp_path / "unseen", (64, 96), random.Random(0))
    among, alone = described(unseen.among), described(unseen.folder)
    assert {name: among[name] for name in given} == given and among.keys() - given.keys() == alone.keys()
    assert {name: among[name] for name in alone} == alone and alone.keys() == unseen.skeletons.keys()
    assert {each[0]["image2_sha256"] for each in alone.values()} <= {
        each[0]["image2_sha256"] for each in given.values()}


def test_names_that_are_no_text_are_among_unseen_videos_too(make_data, tmp_path):
    data, name = make_data({"a": 2}), os.fsdecode(b"\xcb\xef")
    for part, suffix in (("videos", "mp4"), ("images", "png")):
        (data / part / f"a.{suffix}").rename(data / part / f"{name}.{suffix}")
    unseen = make_unseen(data, tmp_path / "unseen", (64, 96), random.Random(0))
    assert described(data).items() <= described(unseen.among).items() and len(described(unseen.among)) == 3


def test_without_a_pair_no_unseen_videos_are_made(make_data, tmp_path):
    data = make_data({"a": 2, "b": 2})
    for name in "ab":
        (data / "images" / f"{name}.png").rename(data / "images" / f"{name} of another.png")
    with pytest.raises(InputError, match="a.mp4 has no image"):
        make_unseen(data, tmp_path / "unseen", (64, 96), random.Random(0))


def test_copies_of_a_read_only_folder_can_be_written_to(data, tmp_path):
    for parent, _, files in os.walk(data):
        for name in files:
            os.chmod(os.path.join(parent, name), 0o444)
        os.chmod(parent, 0o555)
    copy_without_outputs(data, tmp_path / "copy")
    modes = [os.stat(os.path.join(parent, name)).st_mode
             for parent, _, files in os.walk(tmp_path / "copy") for name in (*files, ".")]
    assert len(modes) >= 8 and all(mode & 0o200 for mode in modes)
    for parent, _, _ in os.walk(data):
        os.chmod(parent, 0o755)
