"""Videos are coded as the base model's are, and the judge tells what a reader that ignores tags sees."""

import subprocess

import cv2
import numpy as np
import pytest

import infer
from bench import similarity
from bench.judge import Folders, Judge, judge_folder
from bench.report import _remarks
from bench.similarity import load_extractor
from pipeline.recipe import BASELINE, Recipe, RecipeError, parse_recipe
from pipeline.video.base_colours import as_base_videos
from pipeline.video.colours import TAGGED, Colours
from pipeline.video.ffmpeg import ffmpeg_exe
from pipeline.video.reader import VideoReader, colours_of, read
from tests.clips import make, picture_frames, write
from tests.extractors import write_extractor

CODED = ["yuv420p", "yuv420p(tv, bt709)", "yuv420p(tv, smpte170m)", "yuv444p", "yuv444p(pc, bt709)",
         "yuv420p(pc, bt470bg/bt470bg/unknown)"]


def red_frames(count=6):
    """A saturated ramp: the two matrices differ there by up to 20 levels."""
    x = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.stack([np.full((48, 64), 220), np.broadcast_to(x // 4, (48, 64)), np.full((48, 64), 20)], -1)
    return [np.roll(frame, 4 * i, 1).astype(np.uint8).copy() for i in range(count)]


def as_bt601(path):
    """The frames of a yuv420p video, its luma and chroma taken as BT.601 by OpenCV's conversion."""
    raw = ["-i", str(path), "-pix_fmt", "yuv420p", "-f", "rawvideo", "pipe:1"]
    planes = subprocess.run([ffmpeg_exe(), "-v", "error", *raw], stdout=subprocess.PIPE, check=True).stdout
    frames = np.frombuffer(planes, np.uint8).reshape(-1, 72, 64)
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420) for frame in frames])


@pytest.mark.parametrize("text", CODED)
def test_what_is_written_is_found_again_and_read_without_a_bias(tmp_path, text):
    frames = picture_frames(6)
    path = write(tmp_path / "it.mp4", frames, colours=Colours.parse(text))
    assert str(colours_of(path)) == text
    error = read(path).frames.astype(float) - np.stack(frames)
    assert np.abs(error.mean((0, 1, 2))).max() < 1


def test_untagged_video_is_what_imageio_and_opencv_write(tmp_path):
    assert colours_of(make(tmp_path / "a.mp4", "-pix_fmt", "yuv420p")) == Colours()
    writer = cv2.VideoWriter(str(tmp_path / "b.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 24, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert colours_of(tmp_path / "b.mp4") == Colours()


def test_a_reader_that_ignores_tags_sees_bt601(tmp_path):
    frames = red_frames()
    tagged, untagged = (write(tmp_path / f"{name}.mp4", frames, colours=colours)
                        for name, colours in (("a", TAGGED), ("b", Colours())))
    blind = np.stack(list(VideoReader(tagged, tag_blind=True))).astype(float)
    assert np.abs(blind - as_bt601(tagged)).mean() < 2.5 and np.abs(blind - np.stack(frames)).mean() > 5
    assert np.abs(read(untagged).frames.astype(float) - as_bt601(untagged)).mean() < 2.5


def test_the_base_models_videos_decide_unless_the_recipe_does(tmp_path):
    said = []
    assert as_base_videos(BASELINE, tmp_path, said.append) is BASELINE
    (tmp_path / "outputs").mkdir()
    assert as_base_videos(BASELINE, tmp_path, said.append) is BASELINE
    first = write(tmp_path / "outputs" / "a.mp4", picture_frames(2))
    assert as_base_videos(BASELINE, tmp_path, said.append) is BASELINE and said == []
    write(first, picture_frames(2), colours=Colours())
    found = as_base_videos(BASELINE, tmp_path, said.append)
    assert found.coded == Colours() and found.is_baseline and "yuv420p, as" in said[0]
    own = Recipe("own", colours="yuv444p")
    assert as_base_videos(own, tmp_path, said.append) is own
    write(first, picture_frames(2), lossless=True)
    assert as_base_videos(BASELINE, tmp_path, said.append) is BASELINE and "not as" in said[-1]
    first.write_bytes(b"no video")
    assert as_base_videos(BASELINE, tmp_path, said.append) is BASELINE and "is not a video" in said[-1]


def test_a_recipe_keeps_its_colours_and_refuses_what_cannot_be_written():
    recipe = parse_recipe('colours = "yuv420p"', "it")
    assert recipe.coded == Colours() and parse_recipe(recipe.to_toml(), "it") == recipe
    for text, message in (("rgb24", "pixel format 'rgb24'"), ("yuv420p(tv, bt2020nc)", "matrix 'bt2020nc'"),
                          ("yuv420p(bt7O9)", "matrix 'bt7O9'"), ("yuv420p(x)", "is 'yuv420p' meant"),
                          ("709!", "does not name colours")):
        with pytest.raises(RecipeError, match=message):
            Recipe("it", colours=text)


def test_infer_writes_as_the_base_videos_are_written(make_data, run_main, tmp_path, tiny_file):
    data = make_data({"a": 3})
    (data / "outputs").mkdir()
    for colours in (Colours(), TAGGED):
        write(data / "outputs" / "a.mp4", picture_frames(2), colours=colours)
        out = tmp_path / colours.matrix
        answer = run_main(infer, "--data", data, "--out", out, "--generator", f"{tiny_file}:Tiny")
        assert answer.status == 0, answer.err
        assert colours_of(out / "a.mp4") == colours


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    return Judge([load_extractor("grid")])


def test_the_judge_tells_what_a_reader_that_ignores_tags_sees(judge, tmp_path):
    folders = {name: tmp_path / name for name in ("untagged", "tagged")}
    for folder, colours in zip(folders.values(), (Colours(), TAGGED), strict=True):
        folder.mkdir()
        write(folder / "a.mp4", red_frames(), colours=colours)
    other, = judge_folder(judge, Folders(*folders.values(), {}), lambda text: None)
    assert other["tag_blind"]["coded"] == ["yuv420p", "yuv420p(tv, bt709)"]
    assert other["tag_blind"]["psnr"] < 32 < 40 < other["metrics"]["psnr"]
    check, = [each for each in other["checks"] if "tags ignored" in each["name"]]
    assert check["value"].endswith("(yuv420p(tv, bt709), the reference yuv420p)")
    remark, = _remarks({"videos": [other]})
    assert remark.startswith("1 of 1 videos are coded otherwise than the reference (a: yuv420p(tv, bt709), ")
    same, = judge_folder(judge, Folders(folders["tagged"], folders["tagged"], {}), lambda text: None)
    assert "tag_blind" not in same and list(_remarks({"videos": [same]})) == []


def test_a_video_that_only_a_reader_of_tags_finds_alike_does_not_pass(judge, tmp_path, monkeypatch):
    tagged = write(tmp_path / "a.mp4", red_frames())
    untagged = write(tmp_path / "b.mp4", red_frames(), colours=Colours())
    seen = judge.compare_files(untagged, tagged)["tag_blind"]["cosine"]["grid"]
    strict = Judge(judge.extractors, ((1 + seen) / 2, 1.0))
    found = strict.compare_files(untagged, tagged)
    failed = [check["name"] for check in found["checks"] if not check["passes"]]
    assert "similarity (grid, colour tags ignored)" in failed and "similarity (grid)" not in failed
    assert not found["passes"]
