"""Covers: frames are looked at all over a video, the best is chosen, and a scorer of one's own may judge."""

import json

import numpy as np
import pytest

import finish.__main__ as script
import finish.scorer as scorer_module
from engines.errors import EngineError, InputError
from finish import sampling
from finish.cover import ahead, choose_cover, videos_of
from finish.sampling import frame_at, sample, scattered
from finish.scorer import own_scorer
from pipeline.video.reader import VideoReader, read_image
from tests.clips import make, picture_frames, write
from tests.networks import always, brightness


@pytest.fixture
def scorer(tmp_path):
    """Scores pictures by their mean."""
    return own_scorer(brightness(tmp_path / "brightness.onnx"))


@pytest.fixture
def clip(tmp_path):
    """Twenty frames; number 13 is the brightest."""
    frames = [frame // 2 + 5 * (20 - abs(n - 13)) for n, frame in enumerate(picture_frames(20))]
    return write(tmp_path / "clip.mp4", [frame.astype(np.uint8) for frame in frames])


def test_the_frame_with_the_highest_score_is_chosen_among_all(clip, scorer):
    chosen = choose_cover(clip, scorer)
    assert chosen.frame == 13 and sorted(chosen.scores) == list(range(20))
    assert chosen.score == max(chosen.scores.values())
    assert (chosen.picture == list(VideoReader(clip))[13]).all()


def test_with_little_time_fewer_frames_are_looked_at_but_one_always(clip, scorer):
    assert len(choose_cover(clip, scorer, seconds=0).scores) == 1
    assert len(choose_cover(clip, scorer, frames=5).scores) == 5


def test_samples_lie_all_over_a_video_from_the_start():
    assert scattered(1000, 7) == [500, 250, 750, 125, 625, 375, 875]
    assert sorted(scattered(5, 64)) == [0, 1, 2, 3, 4]
    assert max(np.diff(sorted(scattered(100_000, 64)))) < 3200


def test_a_frame_looked_up_in_a_long_video_is_the_one_that_decoding_gives(tmp_path, monkeypatch):
    path = make(tmp_path / "long.mp4", "-g", "250", rate="30000/1001", seconds=4)
    frames = list(VideoReader(path))
    with VideoReader(path) as reader:
        for number in (0, 1, 59, len(frames) - 1):
            assert (frame_at(path, reader.info, number) == frames[number]).all()
    monkeypatch.setattr(sampling, "WALKED", 10)
    found = list(sample(path, 4, np.inf))
    assert [number for number, _ in found] == scattered(len(frames), 4)
    assert all((picture == frames[number]).all() for number, picture in found)


def test_a_scorer_without_a_number_is_an_error_and_one_such_frame_is_passed_over(tmp_path, clip):
    nowhere = own_scorer(always(tmp_path / "nan.onnx", "score", [np.nan] * 8, [8]))
    with pytest.raises(InputError, match="gives no number for any frame"):
        choose_cover(clip, nowhere, frames=8)
    somewhere = own_scorer(always(tmp_path / "some.onnx", "score", [np.nan, 1, *[0] * 6], [8]))
    assert choose_cover(clip, somewhere, frames=8).score == 1


def test_another_file_than_a_scorer_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file; expected a network"):
        own_scorer(tmp_path / "lost.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(EngineError, match="onnxruntime cannot load"):
        own_scorer(tmp_path / "text.onnx")
    with pytest.raises(EngineError, match="outputs are {'quality': 'float32'}"):
        own_scorer(brightness(tmp_path / "other.onnx", "quality"))


def test_what_stops_the_thread_that_runs_ahead_is_raised_where_its_items_are_used():
    def broken():
        yield 1
        raise KeyError("there is no 2")
    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(KeyError, match="no 2"):
        next(items)
    assert list(ahead(iter(range(9)))) == list(range(9))


def test_a_folder_gets_a_cover_for_each_video_and_a_broken_one_changes_nothing(tmp_path, clip, run_main):
    folder = tmp_path / "videos"
    folder.mkdir()
    clip.rename(folder / "good.mp4")
    (folder / "bad.mp4").write_bytes(b"no video")
    scorer = brightness(tmp_path / "brightness.onnx")
    answer = run_main(script, "cover", folder, "--out", tmp_path / "covers", "--scorer", scorer, "--json")
    assert answer.status == 7 and "bad.mp4: is not a video" in answer.err
    line = json.loads(answer.out)
    assert line["frame"] == 13 and read_image(line["cover"]).shape == (48, 64, 3)
    alone = run_main(script, "cover", folder / "bad.mp4", "--out", tmp_path / "covers", "--scorer", scorer)
    assert alone.status == 3


def test_pictures_that_the_videos_are_made_of_are_not_written_over(tmp_path, clip, run_main):
    for name in ("images", "outputs"):
        (tmp_path / name).mkdir()
    clip.rename(tmp_path / "outputs/ada.mp4")
    (tmp_path / "images/ada.png").write_bytes(b"the person")
    answer = run_main(script, "cover", tmp_path / "outputs", "--out", tmp_path / "images")
    assert answer.status == 2 and "choose another --out" in answer.err
    assert (tmp_path / "images/ada.png").read_bytes() == b"the person"


def test_a_folder_with_two_videos_of_one_name_or_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no file ending in .3g2, "):
        videos_of(tmp_path)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.mov").touch()
    with pytest.raises(InputError, match="two videos named a"):
        videos_of(tmp_path)


def test_wrong_use_ends_with_the_status_of_its_kind(tmp_path, clip, run_main, monkeypatch):
    out = tmp_path / "covers"
    assert run_main(script, "cover", tmp_path / "lost.mp4", "--out", out).status == 3
    assert run_main(script, "cover", clip, "--out", out, "--backend", "nothing").status == 4
    assert run_main(script, "cover", clip, "--out", clip).status == 2
    assert run_main(script, "export", "--precision", "fp12").status == 2
    assert run_main(script, "cover", clip).status == 2
    for wrong in (("--frames", "0"), ("--seconds", "-1"), ("--seconds", "nan")):
        assert run_main(script, "cover", clip, "--out", out, *wrong).status == 2
    monkeypatch.setattr(scorer_module, "built_folder", lambda name: tmp_path)
    answer = run_main(script, "cover", clip, "--out", out, "--backend", "onnxruntime", "--precision", "int8")
    assert answer.status == 4 and "run: python -m lab.finish export --precision int8" in answer.err
