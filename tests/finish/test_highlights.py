"""What moves is found, boxes hold it calmly, a broken video changes nothing, cut-downs have their sound."""

import json

import cv2
import numpy as np
import pytest

import finish.__main__ as script
from bench.similarity import load_extractor
from finish.cut import even, runs
from finish.framing import calm, framed, whole
from finish.highlights import highlights, subject
from finish.moments import chances, stretches
from finish.predictions import Frames, faults
from finish.saliency import Detector, Motion, weigh
from finish.score import score_video
from finish.scorer import own_scorer
from finish.signals import TICKS, Eyes, Signals, measure
from finish.sound import add_samples, channels_of, loudness
from lab.finish.wide import FPS, SIZE, SOUND_RATE, WideClip
from pipeline.video.reader import read
from tests.clips import make, run, write
from tests.later_rounds import later_rounds
from tests.networks import always, brightness

TALL, WIDE = (9, 16), (16, 9)


def signals(ticks=240, lively=(), sound=None, cut=()):
    """Forty seconds in which nothing happens but in some ticks, where all moves on the right."""
    random = np.random.default_rng(0)
    motion = 0.2 + 0.05 * random.random(ticks)
    maps = np.zeros((ticks, 22, 48), np.float16)
    maps[:, 8:12, 10:14] = 0.2
    for first, last in lively:
        motion[first:last] += 2
        maps[first:last, 6:20, 34:40] = 4
    marks = np.isin(np.arange(ticks), cut)
    same = np.ones((ticks, 4), np.float32)
    places = np.arange(2 * ticks) / 2
    return Signals(6.0, (480, 216), places, maps, motion, marks, np.ones(ticks), same, sound)


def test_a_stretch_that_moves_stands_out_and_a_quiet_video_has_none():
    assert stretches(signals()) == []
    (first, last), = stretches(signals(lively=[(100, 130)]))
    assert abs(first - 100) <= 3 and abs(last - 130) <= 3
    assert len(stretches(signals(lively=[(60, 90), (150, 190)]))) == 2


def test_a_video_shorter_than_a_second_has_signals_of_its_own_length():
    assert len(chances(signals(ticks=3))) == 3 and highlights(signals(ticks=3), TALL) == []


def test_sound_counts_and_none_counts_neither_way():
    loud = np.full(240, -40.0)
    loud[100:130] = -12
    moving = [(100, 130)]
    base = chances(signals(lively=moving))[115]
    assert chances(signals(lively=moving, sound=loud))[115] > base
    assert chances(signals(lively=moving, sound=np.full(240, -40.0)))[115] == pytest.approx(base)


def test_predictions_are_valid_ascending_and_hold_what_moves_for_any_ratio():
    for ratio in (TALL, WIDE, (1, 1), (3, 1)):
        found = highlights(signals(lively=[(100, 140)]), ratio)
        assert len(found) >= 60
        assert list(faults(found, Frames(480, 480, 216, ratio))) == []
        x, _, wide = found[len(found) // 2]["bboxes"]
        assert x <= 340 and x + wide >= 400


def test_a_cut_ends_a_box():
    moving = signals(lively=[(100, 140)], cut=[120])
    moving.maps[120:140] = np.roll(moving.maps[120:140], -30, axis=2)
    found = {each["frame"]: each["bboxes"] for each in highlights(moving, TALL)}
    assert found[239][0] > 250 and found[240][0] < 120


def test_a_box_is_the_smallest_with_a_margin_that_lies_inside():
    subjects = np.array([[100, 50, 140, 150], [0, 0, 480, 216], [470, 200, 480, 216]], float)
    for ratio in (TALL, WIDE):
        boxes = framed(subjects, ratio, SIZE)
        for (x, y, w), (left, top, right, bottom) in zip(boxes, subjects, strict=True):
            h = w * ratio[1] / ratio[0]
            assert x >= 0 and y >= 0 and x + w <= 480 + 1e-9 and y + h <= 216 + 1e-9
            if right - left <= w and bottom - top <= h:
                assert x <= left and y <= top and x + w >= right and y + h >= bottom
    assert framed(subjects[:1], WIDE, SIZE)[0, 2] == pytest.approx(100 * 16 / 9 * 1.16)


def test_whole_boxes_pass_the_check_at_every_edge():
    random = np.random.default_rng(0)
    for ratio in (TALL, WIDE, (4, 5)):
        boxes = random.uniform(-50, 500, (200, 3))
        found = [{"frame": n, "bboxes": whole(box, ratio, (481, 217))} for n, box in enumerate(boxes)]
        assert list(faults(found, Frames(200, 481, 217, ratio))) == []


def test_the_camera_rests_while_the_subject_only_trembles_and_follows_once_when_it_goes():
    random = np.random.default_rng(0)
    boxes = np.tile([100.0, 0.0, 120.0], (60, 1)) + random.normal(0, 4, (60, 3))
    boxes[5] += 200  # a mistake
    assert np.ptp(calm(boxes, 480, 6)[:, 0]) == 0
    boxes[30:, 0] += 150
    path = calm(boxes, 480, 6)[:, 0]
    moving = np.flatnonzero(np.diff(path))
    assert len(moving) <= 7 and 28 <= moving[0] <= 31
    assert abs(path[0] - 100) < 5 and abs(path[-1] - 250) < 10


def test_the_strongest_place_is_the_subject():
    seen = np.zeros((22, 48), np.float32)
    seen[4:16, 30:36] = 3
    seen[10:12, 5:8] = 2
    left, top, right, bottom = subject(seen) * (48, 22, 48, 22)
    assert 24 <= left <= 30 and 36 <= right <= 42 and top <= 4 and bottom >= 16
    assert (subject(np.zeros((22, 48))) == [0.25, 0, 0.75, 1]).all()


def textured(seed=0):
    cells = np.random.default_rng(seed).integers(0, 255, (20, 40), np.uint8)
    return cv2.resize(cells, (200, 100), interpolation=cv2.INTER_CUBIC)


def test_a_camera_that_moves_is_not_motion_a_thing_that_moves_is_and_a_cut_is_a_cut():
    wall, motion = textured(), Motion()
    motion(wall[10:82, 20:180])
    panned, cut = motion(wall[12:84, 24:184])
    assert not cut and panned[8:-8, 8:-8].mean() < 1
    moved = wall[12:84, 24:184].copy()
    moved[20:40, 100:120] = 255 - moved[20:40, 100:120]
    found, cut = motion(moved)
    assert not cut and found[20:40, 100:120].mean() > 20 * (found[:, :80].mean() + 0.1)
    nothing, cut = motion(textured(1)[:72, :160])
    assert cut and not nothing.any()


@pytest.mark.parametrize(("name", "values", "shape"), [
    ("boxes", [0.5, 0.0, 1.0, 1.0, 0.9], [1, 5]),
    ("saliency", [0, 0.9], [1, 1, 2]),
])
def test_a_detector_of_the_users_own_says_where_there_is_something_to_see(tmp_path, name, values, shape):
    detector = Detector(always(tmp_path / "own.onnx", name, values, shape))
    found = detector(np.zeros((72, 160, 3), np.uint8), (22, 48))
    assert found.shape == (22, 48) and found[:, 40:].min() > 0.8 and found[:, :8].max() < 0.1
    grey = np.full((72, 160, 3), 90, np.uint8)
    everywhere = np.ones((72, 160), np.float32)
    weighed = weigh(grey, everywhere, detector)
    assert weighed[:, 40:].mean() > 3 * weighed[:, :8].mean()
    assert np.ptp(weigh(grey, everywhere, None)) < 1e-3


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    path = tmp_path_factory.mktemp("scorer") / "brightness.onnx"
    return Eyes(own_scorer(brightness(path)), load_extractor("stfn"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A rendered clip of twenty seconds with a lively stretch, and its file."""
    clip = next(c for c in (WideClip(seed, 20) for seed in range(1_950_017, 1_950_100))
                if len(c.shots) == 1 and any(not each.spoilt for each in c.stretches))
    path = tmp_path_factory.mktemp("wide") / "wide.mp4"
    clip.write(path)
    return clip, path


def test_a_rendered_clip_is_found_again_better_than_by_plain_rules(wide, eyes):
    clip, path = wide
    seen = measure(path, eyes)
    assert (len(seen.places), seen.size, seen.rate) == (240, SIZE, TICKS)
    each = (seen.maps, seen.motion, seen.cut, seen.quality, seen.feature, seen.sound)
    assert [len(signal) for signal in each] == [120] * 6
    frames, truth = Frames(clip.count, *SIZE, TALL), clip.truth(TALL)
    centre = [{"frame": n, "bboxes": [179, 0, 121]} for n in range(clip.count)]
    ours = score_video(highlights(seen, TALL), truth, frames).f
    assert ours > 0.25 and ours > 1.5 * score_video(centre, truth, frames).f


def test_truth_lies_inside_the_picture_and_covers_the_lively_stretches_only(wide):
    clip, _ = wide
    for ratio in (TALL, WIDE):
        truth = clip.truth(ratio)
        assert list(faults(truth, Frames(clip.count, *SIZE, ratio))) == []
        lively = {n for s in clip.stretches if not s.spoilt for n in range(s.first, s.last)}
        assert {each["frame"] for each in truth} == lively


def index(folder, *names):
    lines = [{"video_id": f"{name}-{w}x{h}", "video": f"{name}.mp4", "targetRatioWH": [w, h], "more": 1}
             for name in names for w, h in (TALL, WIDE)]
    path = folder / "index.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_from_an_index_to_cut_downs_a_broken_video_changes_nothing_for_others(tmp_path, wide, run_main):
    clip, path = wide
    videos, out = tmp_path / "videos", tmp_path / "found.jsonl"
    videos.mkdir()
    (videos / "wide.mp4").symlink_to(path)
    scorer = brightness(tmp_path / "brightness.onnx")
    command = ["highlights", "--videos", videos, "--out", out, "--scorer", scorer, "--index"]
    sparse = "--select", "sparse"
    assert run_main(script, *command, index(tmp_path, "wide"), *sparse).status == 0
    alone = out.read_text().splitlines()
    (videos / "bad.mp4").write_bytes(path.read_bytes()[:20_000])
    answer = run_main(script, *command, index(tmp_path, "bad", "wide"), *sparse)
    assert answer.status == 7 and "bad.mp4: is truncated" in answer.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [json.dumps(line) for line in lines if line["video"] == "wide.mp4"] == alone
    assert all(line["predictions"] == [] and "truncated" in line["error"] and line["more"] == 1
               for line in lines if line["video"] == "bad.mp4")
    lost = [*command[:4], tmp_path / "lost" / "found.jsonl", *command[5:]]
    late = run_main(script, *lost, index(tmp_path, "wide"))
    assert late.status == 2 and "expected a file in a folder that exists" in late.err
    out.write_text("\n".join(alone))
    checked = run_main(script, "check", out, "--index", index(tmp_path, "wide"), "--videos", videos)
    assert (checked.status, checked.out) == (0, "all right\n")
    truth = tmp_path / "truth.jsonl"
    shape = {"frames": clip.count, "width": SIZE[0], "height": SIZE[1]}
    truth.write_text("\n".join(json.dumps({**json.loads(line), **shape}) for line in alone))
    assert float(run_main(script, "score", out, truth).out.split()[-1]) == pytest.approx(100)
    assert run_main(script, "score", out, out, "--videos", videos).out.endswith("\n100.0000\n")
    later_rounds(["--videos", videos], scorer, index(tmp_path, "wide"), clip.count, run_main)
    answer = run_main(script, "cut", out, "--videos", videos, "--out", tmp_path / "cuts", "--json")
    assert answer.status == 0
    for line in map(json.loads, answer.out.splitlines()):
        made = read(line["file"])
        assert len(made.frames) == line["frames"] and channels_of(tmp_path / line["file"])
        assert loudness(line["file"], 1.0).size == pytest.approx(line["frames"] / FPS, abs=1.1)
    assert len(list((tmp_path / "cuts").iterdir())) == 2


def predictions_file(folder, video, *predictions, ratio=(1, 1)):
    line = {"video_id": "it", "video": video.name, "targetRatioWH": ratio, "predictions": list(predictions)}
    path = folder / "predictions.jsonl"
    path.write_text(json.dumps(line))
    return path


def test_a_cut_down_shows_the_boxes_and_a_silent_video_stays_silent(tmp_path, run_main):
    frames = [np.full((64, 96, 3), (250 if n < 6 else 20, 40, 40), np.uint8) for n in range(12)]
    for frame in frames:
        frame[:, 48:] = (20, 40, 250)
    video = write(tmp_path / "v.mp4", frames)
    chosen = [{"frame": n, "bboxes": [50, 8, 40]} for n in (2, 3, 8)]
    made = predictions_file(tmp_path, video, *chosen)
    assert run_main(script, "cut", made, "--videos", tmp_path, "--out", tmp_path / "cuts").status == 0
    clip = read(tmp_path / "cuts" / "it.mp4")
    assert clip.frames.shape == (3, 40, 40, 3) and clip.fps == 24
    assert np.abs(clip.frames.mean((0, 1, 2)) - (20, 40, 250)).max() < 6
    assert not channels_of(tmp_path / "cuts" / "it.mp4")


def test_the_sound_of_a_cut_down_is_that_of_its_frames(tmp_path, run_main):
    silent = make(tmp_path / "silent.mp4", seconds=4, rate="10")
    tone = np.zeros(4 * SOUND_RATE)
    tone[SOUND_RATE : 2 * SOUND_RATE] = 0.5 * np.sin(np.arange(SOUND_RATE) * 0.5)
    video = tmp_path / "v.mp4"
    add_samples(silent, (tone * 32767).astype(np.int16), SOUND_RATE, video)
    chosen = [{"frame": n, "bboxes": [0, 0, 48]} for n in (*range(5, 10), *range(10, 15), *range(30, 40))]
    made = predictions_file(tmp_path, video, *chosen)
    assert run_main(script, "cut", made, "--videos", tmp_path, "--out", tmp_path / "cuts").status == 0
    level = loudness(tmp_path / "cuts" / "it.mp4", 10)
    assert len(level) == pytest.approx(20, abs=1)
    assert level[:4].max() < -35 < -12 < level[6:9].min() and level[12:].max() < -35


def test_faulty_predictions_are_not_cut_and_the_check_ends_with_3(tmp_path, run_main):
    video = make(tmp_path / "v.mp4")
    made = predictions_file(tmp_path, video, {"frame": 99, "bboxes": [0, 0, 48]})
    answer = run_main(script, "cut", made, "--videos", tmp_path, "--out", tmp_path / "cuts")
    assert answer.status == 3 and "frame 99 is outside of 0..23" in answer.err
    answer = run_main(script, "check", made, "--index", made, "--videos", tmp_path)
    assert answer.status == 3 and answer.out == "line 1: frame 99 is outside of 0..23\n"


def test_loudness_is_in_decibels_and_nothing_without_sound(tmp_path):
    assert loudness(make(tmp_path / "silent.mp4"), 6) is None
    tone = tmp_path / "tone.mp4"
    run("-f", "lavfi", "-i", "sine=d=2:f=440", "-f", "lavfi", "-i", "testsrc2=s=64x48:d=2", tone)
    level = loudness(tone, 6)
    assert len(level) in (12, 13) and np.abs(level[2:10] - 20 * np.log10(0.125 / np.sqrt(2))).max() < 1


def test_runs_are_where_numbers_follow_on_one_another_and_sizes_are_even():
    assert runs([1, 2, 3, 7, 9, 10]) == [(1, 4), (7, 8), (9, 11)]
    assert [even(length) for length in (0.4, 40.9, 41.2, 120)] == [2, 40, 42, 120]


def test_frames_of_every_rate_and_number_are_covered(tmp_path, eyes):
    path = make(tmp_path / "odd.mp4", rate="25", seconds=1)
    seen = measure(path, eyes)
    assert seen.rate == 25 / 4 and len(seen.places) == 25 and len(seen.motion) == 7
    found = highlights(signals(lively=[(200, 240)]), TALL)
    assert found[-1]["frame"] == 479
