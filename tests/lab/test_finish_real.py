"""Videos made of real clips know what is in them, and the figures give known answers for known watching."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import Exit
from finish.following import follow
from finish.predictions import Frames, faults
from finish.scorer import WEIGHTS
from finish.watching import Watched
from lab.finish import __main__ as command
from lab.finish.footage import FPS, KNOWN, SIZE, Part, Reel
from lab.finish.long import _children, _status
from lab.finish.real import RATIOS, Seen, cuts_found, defaults, faces_kept, flaws_found, ways
from lab.finish.ways import smoothed_faces, table


@pytest.fixture(scope="module")
def reel():
    random = np.random.default_rng(0)
    walls = [cv2.resize(random.integers(0, 255, (9, 12, 3), np.uint8), (200, 120)) for _ in range(2)]
    boxes = np.array([[0.35, 0.3, 0.5, 0.6]])
    return Reel(3, [Part("a", "face", walls[0][None], boxes), Part("b", "place", walls[1][None], None)], 24)


def watched(reel):
    """What perfect eyes would see of it."""
    count = len(reel.moments)
    looks = np.unique([*range(0, count, 5), *reel.cuts]).astype(int)
    found = []
    for n in looks:
        shows, box = reel.subject(n)
        seen = shows == "face" and box is not None
        found.append(np.array([[*(box / np.tile(SIZE, 2)), 1.0]]) if seen else np.zeros((0, 5)))
    ones = np.ones(count)
    return Watched(
        SIZE, np.arange(count + 1) / FPS, np.isin(np.arange(count), reel.cuts),
        np.where(reel.flaws == "black", 0, 120.0), np.where(reel.flaws == "black", 0, 50.0),
        np.where(reel.flaws == "frozen", 0, 3.0), np.zeros((count, 2)), looks, found,
        np.ones((len(looks), 48)), np.ones((len(looks), 27)),
        np.random.default_rng(0).uniform(0, 255, (len(looks), 144)), np.ones(len(looks)) * ones[0])


def test_a_reel_has_its_subjects_where_its_pictures_show_them(reel):
    wall = next(shot for shot in reel.shots if shot.part.source == "a")
    wall.part.frames[:] = 0
    high, wide = wall.part.frames.shape[1:3]
    wall.part.frames[0, round(0.3 * high) : round(0.6 * high), round(0.35 * wide) : round(0.5 * wide)] = 255
    checked = 0
    for n in range(0, len(reel.moments), 20):
        moment, (shows, box) = reel.moments[n], reel.subject(n)
        if shows == "face" and moment.flaw == "":
            frame = reel.shots[moment.shot].picture(moment.at, np.zeros(2))
            rows, columns = np.nonzero(frame[..., 0] > 127)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(seen) - np.clip(box, 0, np.tile(SIZE, 2))).max() < 4
            checked += 1
    assert checked > 5


def test_the_truth_has_a_valid_box_for_each_frame_without_a_flaw(reel):
    for ratio in RATIOS.values():
        truth = reel.truth(ratio)
        assert list(faults(truth, Frames(len(reel.moments), *SIZE, ratio))) == []
        assert len(truth) == (reel.flaws == "").sum() < len(reel.moments)


def test_perfect_eyes_get_perfect_figures(reel):
    seen = [Seen(reel, watched(reel), {name: [] for name in RATIOS}, 1.0)]
    kept = faces_kept(seen, (9, 16))
    assert kept["whole"] == 1 and kept["whole in the middle"] < 1
    assert cuts_found(seen) == {"recall": 1, "precision": 1, "cuts": len(reel.cuts)}
    found = flaws_found(seen)
    kinds = set(reel.flaws) & {"black", "frozen"}
    assert kinds and all(found[kind]["found"] > 0.9 for kind in kinds)
    score = ways(seen, "9:16")
    assert score["all"] > score["blind"] > score["sparse"] == 0
    assert score["face"] > score["centre"] > score["few"] > 0
    header, _, row = table({"real": {"9:16": score}}).splitlines()
    assert header.count("|") == row.count("|") and f"**{score['all']:.1f}**" in row
    assert defaults(seen)["jitter"]["1.6"] <= defaults(seen)["jitter"]["0.2"] + 0.2
    assert follow(seen[0].watched, (9, 16)).shape == (len(reel.moments), 3)


def test_the_plain_rule_is_at_the_largest_face_and_goes_from_one_to_the_next_without_a_jump(reel):
    seen, (wide, high) = watched(reel), SIZE
    count, faces = len(reel.moments), [np.zeros((0, 5)) for _ in seen.looks]
    faces[0] = np.array([[0.3, 0.3, 0.4, 0.6, 0.99], [0.8, 0.3, 0.85, 0.4, 0.99], [0.4, 0, 0.9, 1, 0.5]])
    faces[-1] = np.array([[0.6, 0.3, 0.7, 0.6, 0.95]])
    boxes = smoothed_faces(replace(seen, faces=faces), (9, 16))
    middles = (boxes[:, 0] + boxes[0, 2] / 2) / wide
    assert boxes.shape == (count, 3) and boxes[0, 2] == round(high * 9 / 16)
    assert middles[0] == pytest.approx(0.35, abs=0.01) and middles[-1] == pytest.approx(0.65, abs=0.01)
    assert (np.diff(middles) >= 0).all() and np.diff(middles).max() < 0.01
    middle = smoothed_faces(replace(seen, faces=faces[1:2] * len(faces)), (1, 1))
    assert set(middle[:, 0]) == {(wide - high) // 2}


def test_memory_is_read_of_a_process_and_of_those_it_started():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(9)"]) as child:
        assert child.pid in _children(os.getpid())
        assert _status(os.getpid(), "VmRSS") <= _status(os.getpid(), "VmHWM")
        assert 0 < _status(child.pid, "VmHWM") < _status(os.getpid(), "VmHWM")
        child.kill()
    assert _status(child.pid, "VmRSS") == 0


def test_known_boxes_lie_in_their_frames_and_pictures():
    for known in KNOWN.values():
        assert known["licence"]
        for part in known["parts"]:
            first, last = part["frames"]
            for number, (left, top, right, bottom) in part["boxes"].items():
                assert first <= int(number) <= last
                assert 0 <= left < right <= part["size"][0] and 0 <= top < bottom <= part["size"][1]


def test_pictures_are_put_in_order_by_the_bundled_weights_or_by_others(monkeypatch, tmp_path):
    used, begun = [], [sys.argv[0], "real", "--out", str(tmp_path), "--photos", str(tmp_path)]
    monkeypatch.setattr(command, "start_scorer", lambda *args: used.append(args[-1]))
    monkeypatch.setattr("lab.finish.real.order_real", lambda photos, scorer: {})
    monkeypatch.setattr("lab.finish.evaluate.order", lambda scorer, say: {})
    for more in ([], ["--weights", "other.safetensors"]):
        monkeypatch.setattr(sys, "argv", begun + more)
        args = command.parse()
        assert args.run_command(args) is Exit.OK
    assert used == [WEIGHTS, Path("other.safetensors")]
