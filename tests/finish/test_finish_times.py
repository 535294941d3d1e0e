"""Edit lists, late pictures, variable rates, pixel aspect: frames, sound and shape are those shown."""

import json
import shutil
from functools import partial
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import pytest

import finish.__main__ as script
from bench.similarity import load_extractor
from finish import sampling
from finish.cut import file_name, repeats
from finish.highlights import highlights, predict
from finish.predictions import read_index
from finish.sampling import frame_at, sample
from finish.scorer import own_scorer
from finish.signals import Eyes, measure
from finish.sound import QUIETEST, channels_of, heard, loudness, near
from pipeline.video.reader import InputError, VideoReader, probe, read, read_image
from tests.clips import make, run, write
from tests.networks import brightness

SHARED = Path(__file__).parents[3] / "shared"
CASES, MADE = SHARED / "cases" / "media", SHARED / "real" / "made"
cases = pytest.mark.skipif(not CASES.is_dir(), reason="the small inputs that failed are not here")
made = pytest.mark.skipif(not MADE.is_dir(), reason="the real inputs are not here")


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    path = tmp_path_factory.mktemp("scorer") / "brightness.onnx"
    return Eyes(own_scorer(brightness(path)), load_extractor("stfn"))


def shades(path, count=20, rate=10):
    """A video whose frame n has the grey 10 n + 20."""
    return write(path, [np.full((48, 64, 3), 10 * n + 20, np.uint8) for n in range(count)], rate, crf=1)


def greys(path):
    """The numbers of the frames of `shades` that a video shows."""
    return np.rint((read(path).frames.mean((1, 2, 3)) - 20) / 10).astype(int).tolist()


def uneven(folder):
    """The frames of `shades` without 3, 4, 5, 6 and 12, at their times."""
    choose = "select='not(between(n,3,6)+eq(n,12))'"
    out = folder / "uneven.mp4"
    run("-i", shades(folder / "even.mp4"), "-vf", choose, "-fps_mode", "passthrough", "-crf", "1", out)
    return out


def beeping(video, out, seconds, start=0.0, late=0.0):
    """A video with a tone in the second second; picture begins after `start` seconds, sound after `late`."""
    tone = f"sine=d={seconds}:f=440,volume='between(t,1,2)':eval=frame"
    run("-itsoffset", start, "-i", video, "-itsoffset", late, "-f", "lavfi", "-i", tone, "-c:v", "copy", out)
    return out


def chosen(folder, video, frames, box=(0, 0, 48)):
    line = {"video_id": 5, "video": video.name, "targetRatioWH": [1, 1]}
    line["predictions"] = [{"frame": n, "bboxes": list(box)} for n in frames]
    path = folder / "predictions.jsonl"
    path.write_text(json.dumps(line))
    return path


def cut_down(folder, video, frames, run_main, box=(0, 0, 48)):
    found, out = chosen(folder, video, frames, box), folder / "cuts"
    answer = run_main(script, "cut", found, "--videos", video.parent, "--out", out)
    assert answer.status == 0, answer.err
    return out / "5.mp4"


def test_frames_of_a_variable_rate_last_as_long_in_a_cut_down(tmp_path, run_main):
    video = uneven(tmp_path)
    path = cut_down(tmp_path, video, (1, 2, 3, 6, 7, 8), run_main)
    assert greys(path) == [1, 2, 2, 2, 2, 2, 7, 10, 11, 11, 13] and read(path).fps == 10


def test_a_cut_down_never_takes_the_place_of_a_video_to_cut(tmp_path, run_main):
    video = shades(tmp_path / "5.mp4")
    before = video.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    found = chosen(tmp_path, video, (1, 2), (0, 0, 48))
    for out in (tmp_path, tmp_path / "link"):
        answer = run_main(script, "cut", found, "--videos", tmp_path, "--out", out)
        assert answer.status == 2 and "5.mp4 is a video to cut, and would be written over" in answer.err
    assert video.read_bytes() == before


@pytest.mark.parametrize(("begins", "rate", "shown"), [
    ([0, 0.1, 0.2], 10, [1, 1]),
    ([8.0, 8.333, 8.667, 9.0], 3, [1, 1, 1]),  # rounded to 1 ms
    ([0, 0.01, 0.1], 10, [0, 1]),
    ([5, 5.01], 10, [1]),
])
def test_a_run_is_repeated_to_last_as_long_and_never_vanishes(begins, rate, shown):
    assert repeats(begins, rate) == shown


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_sound_is_that_of_the_frames_where_picture_begins_late(tmp_path, run_main, suffix):
    video = beeping(shades(tmp_path / "a.mp4"), tmp_path / f"late.{suffix}", 3, start=0.5)
    level = loudness(cut_down(tmp_path, video, range(12), run_main), 10)
    assert level[:4].max() < -35 < -25 < level[6:11].min()


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_sound_is_that_of_the_frames_where_sound_begins_late(tmp_path, run_main, suffix):
    video = beeping(shades(tmp_path / "a.mp4"), tmp_path / f"late.{suffix}", 3, late=0.5)
    level = loudness(cut_down(tmp_path, video, range(3, 19), run_main), 10)  # the tone is at frames 15 to 24
    assert level[:11].max() < -35 < -25 < level[13:16].min()


def test_a_gap_in_the_sound_stays_one(tmp_path, run_main):
    video, gone = tmp_path / "gap.mkv", "aselect='not(between(t,0.5,1.5))'"
    tone = ("-f", "lavfi", "-i", "sine=d=2", "-c:v", "copy", "-af", gone)
    run("-i", shades(tmp_path / "a.mp4"), *tone, video)
    level = loudness(cut_down(tmp_path, video, range(20), run_main), 10)
    assert level[[1, 2, 3, 17, 18]].min() > -30 and level[7:14].max() < -35


def test_runs_before_the_sound_are_silent_and_two_channels_stay_two(tmp_path, run_main):
    video, tone = tmp_path / "stereo.mp4", ("-itsoffset", "1.5", "-f", "lavfi", "-i", "sine=d=0.5")
    panned = ("-af", "pan=stereo|c0=c0|c1=0*c0")
    run("-i", shades(tmp_path / "a.mp4"), *tone, "-c:v", "copy", *panned, video)
    out = cut_down(tmp_path, video, (0, 1, 2, 5, 6, 7, 16, 17, 18), run_main)
    assert channels_of(out) == 2
    left, right = np.concatenate(list(heard(out, (0, 9), 8000, 2, repeat(8000)))).astype(float).T
    assert np.abs(left[:4800]).max() < 100 < 1000 < np.abs(left[5600:7000]).max()
    assert np.abs(right).max() < 100


def test_sound_of_a_variable_rate_keeps_its_time(tmp_path, run_main):
    video = beeping(uneven(tmp_path), tmp_path / "loud.mp4", 2)
    level = loudness(cut_down(tmp_path, video, range(15), run_main), 10)
    assert len(level) == 20 and level[:9].max() < -35 < -25 < level[11:].min()


def test_loudness_is_measured_where_pictures_are_looked_at(tmp_path, eyes):
    late = beeping(make(tmp_path / "a.mp4", rate="10", seconds=3), tmp_path / "late.mp4", 2, start=0.5)
    seen = measure(late, eyes)
    assert seen.rate == 5 and len(seen.sound) == len(seen.motion) == 15
    assert seen.sound[:2].max() < -35 < -25 < seen.sound[3:7].min() and (seen.sound[8:] == QUIETEST).all()


def test_ticks_of_a_variable_rate_are_evenly_spaced_in_time(tmp_path, eyes):
    seen = measure(uneven(tmp_path), eyes)
    assert seen.rate == 6 and len(seen.motion) == 12
    assert seen.places == pytest.approx(np.delete(np.arange(20), [3, 4, 5, 6, 12]) * 0.6)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_frames_looked_up_in_a_late_video_are_those_that_decoding_gives(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(sampling, "WALKED", 5)
    video = make(tmp_path / "a.mp4", "-bf", "2", "-g", "12")
    path = beeping(video, tmp_path / f"late.{suffix}", 3, start=1.5)
    frames, found = list(VideoReader(path)), dict(sample(path, 4, np.inf))
    assert len(found) == 4 and all((found[n] == frames[n]).all() for n in found)


def test_frames_looked_up_in_an_uneven_video_are_those_that_decoding_gives(tmp_path):
    path = uneven(tmp_path)
    frames, info = list(VideoReader(path)), probe(path)
    assert all((frame_at(path, info, n) == frames[n]).all() for n in (0, 2, 3, 8))


def test_people_in_pixels_that_are_not_square_keep_their_shape(tmp_path, run_main):
    video = make(tmp_path / "a.mp4", "-vf", "setsar=2")
    assert read(cut_down(tmp_path, video, range(3), run_main, (0, 0, 40))).frames.shape == (3, 40, 80, 3)
    scorer = brightness(tmp_path / "brightness.onnx")
    answer = run_main(script, "cover", video, "--out", tmp_path / "covers", "--scorer", scorer)
    assert answer.status == 0 and read_image(tmp_path / "covers" / "a.png").shape == (48, 128, 3)
    tall = make(tmp_path / "tall.mp4", "-vf", "setsar=1/2")
    assert read(cut_down(tmp_path, tall, [0], run_main, (0, 0, 40))).frames.shape == (1, 80, 40, 3)


def test_an_id_that_no_file_can_have_is_an_input_error(tmp_path, run_main):
    video = make(tmp_path / "a.mp4")
    found = chosen(tmp_path, video, [0])
    for name in ("n" * 252, "\ud800"):
        with pytest.raises(InputError, match="no file can have this name"):
            file_name(name)
        line = {**json.loads(found.read_text()), "video_id": name}
        (tmp_path / "odd.jsonl").write_text(json.dumps(line))
        folders = ["--videos", tmp_path, "--out", tmp_path / "cuts"]
        answer = run_main(script, "cut", tmp_path / "odd.jsonl", *folders)
        assert answer.status == 3 and "no file can have this name" in answer.err


def test_half_a_pair_of_utf_16_in_an_index_loses_nothing(tmp_path, eyes):
    make(tmp_path / "a.mp4")
    lines = [{"video_id": name, "video": file, "targetRatioWH": [1, 1], "more": "\ud800"}
             for name, file in (("a", "a.mp4"), ("b", "\ud800.mp4"))]
    (tmp_path / "index").write_text("\n".join(map(json.dumps, lines)))
    def look(file):
        return partial(highlights, measure(file, eyes))
    failures = predict(read_index(tmp_path / "index"), tmp_path, look, tmp_path / "found", lambda: None)
    found = [json.loads(line) for line in (tmp_path / "found").read_text().splitlines()]
    assert len(failures) == 1 and [each["more"] for each in found] == ["\ud800"] * 2
    assert "error" not in found[0] and "does not exist" in found[1]["error"]


@cases
def test_predictions_for_frames_that_an_edit_list_leaves_out_are_wrong(tmp_path, run_main):
    shutil.copy(CASES / "trim_editlist.mp4", tmp_path / "trim.mp4")
    index, found = CASES / "editlist_index.jsonl", CASES / "editlist_pred.jsonl"
    answer = run_main(script, "check", found, "--index", index, "--videos", tmp_path)
    assert answer.status == 3 and answer.out.startswith("line 1: frame 52 is outside of 0..51\n")
    assert len(answer.out.splitlines()) == 28
    answer = run_main(script, "cut", found, "--videos", tmp_path, "--out", tmp_path / "cuts")
    assert answer.status == 3 and "frame 52 is outside of 0..51" in answer.err
    assert list((tmp_path / "cuts").iterdir()) == []


@made
def test_real_late_and_uneven_videos_are_looked_up_by_their_times(monkeypatch):
    monkeypatch.setattr(sampling, "WALKED", 5)
    for name in ("late_video", "vfr"):
        path = MADE / f"{name}.mp4"
        found = dict(sample(path, 4, np.inf))
        frames = dict(islice(enumerate(VideoReader(path)), max(found) + 1))
        assert len(found) == 4 and all((found[n] == frames[n]).all() for n in found)


def test_spans_that_are_far_apart_or_long_are_read_by_themselves():
    """A gap in the sound takes ffmpeg 440 kB a second: 2 h of it took 3.2 GB."""
    assert near([(0.0, 1.0), (1.5, 2.0), (7000.0, 7001.0)]) == [[(0.0, 1.0), (1.5, 2.0)], [(7000.0, 7001.0)]]
    groups = near([(10.0, 7210.0)])
    assert sum(stop - start for group in groups for start, stop in group) == 7200.0
    assert max(group[-1][1] - group[0][0] for group in groups) <= 300.0
