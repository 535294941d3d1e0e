"""All frames but the worst are kept; the box follows faces, then what moves, without lag, up to a cut."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from finish.following import FOLLOW, Follow, follow, tracks
from finish.highlights import everything
from finish.predictions import Frames, faults
from finish.pruning import flaws, kept, spans
from finish.scorer import own_scorer
from finish.watching import LOOKS, Gaze, Watched, cuts, watch
from tests.clips import write
from tests.networks import brightness

FPS, SIZE, TALL = 25, (640, 360), (9, 16)
SHARE = 360 * 9 / 16 / 640


def watched(seconds=20, cut=(), faces=None, across=None):
    """A video in which nothing is wrong; faces: from a time in seconds to boxes (m, 5) from 0 to 1."""
    count = seconds * FPS
    begins, looks = np.arange(count + 1) / FPS, np.arange(0, count, FPS // LOOKS)
    marks = np.isin(np.arange(count), cut)
    looks = np.unique(np.concatenate([looks, np.flatnonzero(marks)]))
    random = np.random.default_rng(0)
    seen = np.ones((len(looks), 48)) if across is None else np.stack([across(begins[n]) for n in looks])
    found = [np.zeros((0, 5)) if faces is None else faces(begins[n]) for n in looks]
    return Watched(
        SIZE, begins, marks, np.full(count, 120.0), np.full(count, 50.0), np.full(count, 3.0),
        np.zeros((count, 2)), looks, found, seen, np.ones((len(looks), 27)),
        random.uniform(0, 255, (len(looks), 144)), np.full(len(looks), 0.8))


def face(middle, side=0.1, sure=1.0):
    return [middle - side / 2, 0.3, middle + side / 2, 0.3 + side * 16 / 9, sure]


def middles(boxes):
    return (boxes[:, 0] + boxes[:, 2] / 2) / SIZE[0]


def test_a_video_in_which_nothing_is_wrong_keeps_every_frame_in_the_middle():
    for ratio in (TALL, (16, 9), (3, 1), (1, 1)):
        seen = watched(4)
        found = everything(seen, ratio, 0.1)
        assert [each["frame"] for each in found] == list(range(100))
        assert list(faults(found, Frames(100, *SIZE, ratio))) == []
        assert np.ptp([each["bboxes"] for each in found], axis=0).max() == 0
    assert abs(middles(follow(seen, TALL))[0] - 0.5) < 0.01


def test_a_moving_face_is_followed_without_lag_and_always_whole():
    def walking(t):
        return np.array([face(0.5 + 0.25 * np.sin(t))])

    path = middles(follow(watched(20, faces=walking), TALL))
    true = 0.5 + 0.25 * np.sin(np.arange(500) / FPS)
    inner = slice(25, -25)
    lags = {n: np.corrcoef(np.roll(true, n)[inner], path[inner])[0, 1] for n in range(-12, 13)}
    assert max(lags, key=lags.get) == 0
    assert np.abs(path - true).max() < SHARE / 2 - 0.05


def test_a_trembling_face_leaves_the_box_at_rest():
    random = np.random.default_rng(0)
    path = follow(watched(faces=lambda t: np.array([face(0.7 + random.normal(0, 0.004))])), TALL)
    assert np.ptp(path, axis=0).max() == 0 and abs(middles(path)[0] - 0.7) < 0.01


def test_at_a_cut_the_box_is_at_the_new_face_in_the_same_frame():
    path = middles(follow(watched(8, [93], lambda t: np.array([face(0.25 if t < 93 / FPS else 0.75)])), TALL))
    assert np.abs(path[:93] - 0.25).max() < 0.01 and np.abs(path[93:] - 0.75).max() < 0.01


def test_unsure_and_momentary_faces_are_not_followed_and_sure_is_an_option():
    def lamp(t):
        return np.array([face(0.8, sure=0.85)])

    seen = watched(faces=lamp)
    assert np.abs(middles(follow(seen, TALL)) - 0.5).max() < 0.01
    assert np.abs(middles(follow(seen, TALL, Follow(sure=0.8))) - 0.8).max() < 0.01
    once = watched(faces=lambda t: np.array([face(0.8)]) if t == 2 else np.zeros((0, 5)))
    assert np.abs(middles(follow(once, TALL)) - 0.5).max() < 0.01


def test_two_faces_that_fit_are_both_held_and_of_two_apart_the_larger():
    both = watched(faces=lambda t: np.array([face(0.5), face(0.65, 0.06)]))
    left, right = (follow(both, TALL)[0, [0]] + [0, 202]) / SIZE[0]
    assert left <= 0.45 and right >= 0.68
    apart = watched(faces=lambda t: np.array([face(0.2, 0.05), face(0.8)]))
    assert abs(middles(follow(apart, TALL))[0] - 0.8) < 0.01


def test_another_face_is_followed_while_the_foremost_is_long_away():
    def there(t):
        return np.array([face(0.25, 0.12)] if t < 8 else [face(0.75, 0.06)] if t > 12 else []).reshape(-1, 5)

    path = middles(follow(watched(20, faces=there), TALL))
    assert abs(path[50] - 0.25) < 0.02 and abs(path[-50] - 0.75) < 0.02


def test_without_faces_the_box_goes_where_clearly_most_is_to_be_seen():
    def right(t):
        return np.where(np.arange(48) > 36, 5.0, 0.1)

    assert middles(follow(watched(across=right), TALL))[0] > 0.75
    assert abs(middles(follow(watched(across=lambda t: 1 + np.arange(48) / 480), TALL))[0] - 0.5) < 0.02


def test_a_face_keeps_its_track_through_a_gap_and_beside_another():
    looks = [np.array([face(0.3), face(0.6, 0.2)]), np.zeros((0, 5)), np.array([face(0.61, 0.2), face(0.31)])]
    assert [sorted(track) for track in tracks(looks, 0.9)] == [[0, 2], [0, 2]]


def spoil(seen, name, first, last):
    """The same video with one flaw from one second to another."""
    part = slice(first * FPS, last * FPS)
    light, contrast, change = seen.light.copy(), seen.contrast.copy(), seen.change.copy()
    shift, quality, thumbs = seen.shift.copy(), seen.quality.copy(), seen.thumbs.copy()
    inside = slice(*np.searchsorted(seen.looks, [part.start, part.stop]))
    if name == "black":
        light[part], contrast[part] = 2, 0.5
    elif name == "frozen":
        change[part] = 0
    elif name == "shaken":
        shift[part, 0] = 0.03 * (-1.0) ** np.arange(part.stop - part.start)
    elif name == "blurred":
        quality[inside] = 0.3
    else:
        thumbs[inside] = thumbs[: inside.stop - inside.start]
    return replace(seen, light=light, contrast=contrast, change=change, shift=shift, quality=quality,
                   thumbs=thumbs)


@pytest.mark.parametrize("name", ["black", "frozen", "shaken", "blurred", "repeated"])
def test_each_flaw_is_found_where_it_is_and_left_out(name):
    seen = spoil(watched(40), name, 20, 23)
    found = flaws(seen)
    assert [other for other, which in found.items() if which.any()] == [name]
    (first, last), = spans(found[name])
    assert abs(first / FPS - 20) < 0.5 and abs(last / FPS - 23) < 0.5
    stay = kept(seen, 0.1)
    assert not stay[21 * FPS : 22 * FPS].any() and (~stay).sum() == last - first


def test_no_more_is_left_out_than_allowed_the_worst_first_and_nothing_at_zero():
    seen = spoil(spoil(watched(40), "shaken", 5, 9), "black", 20, 23)
    assert (~kept(seen, 0.1)).sum() <= 100 and not kept(seen, 0.1)[20 * FPS + 1 : 23 * FPS - 1].any()
    assert kept(seen, 0).all() and kept(seen, 0.3).sum() < kept(seen, 0.1).sum()


def test_what_most_of_a_video_is_like_is_no_flaw():
    assert kept(spoil(watched(40), "black", 5, 35), 0.5).all()


def test_a_flash_and_a_shaken_camera_are_no_cuts_and_a_cut_is_one():
    change, alike = np.full(50, 3.0), np.full(50, 0.97)
    change[20], alike[20] = 40, 0.1
    assert np.flatnonzero(cuts(change, alike)).tolist() == [20]
    change[30:40], alike[30:40] = 25, 0.5
    assert np.flatnonzero(cuts(change, alike)).tolist() == [20]


def test_a_file_is_watched_to_its_end_with_its_cut_and_black_and_still_frames(tmp_path):
    random = np.random.default_rng(0)
    walls = [cv2.resize(random.integers(0, 255, (9, 12, 3), np.uint8), (160, 90)) for _ in range(2)]
    frames = [np.roll(walls[n >= 24], n % 24, 1) for n in range(48)]
    frames += [frames[-1]] * 24 + [np.zeros((90, 160, 3), np.uint8)] * 12
    path = write(tmp_path / "v.mp4", frames)
    scorer = own_scorer(brightness(tmp_path / "b.onnx"))
    seen = watch(path, Gaze(scorer, lambda picture: np.array([face(0.7)])))
    assert seen.shots == [(0, 24), (24, 72), (72, 84)]
    assert len(seen.begins) == 85 and {24, 72} <= set(seen.looks) and len(seen.faces) == len(seen.quality)
    assert spans(flaws(seen)["black"]) == [(72, 84)]
    (first, last), = spans(flaws(seen)["frozen"])
    assert 48 <= first <= 50 and last == 72
    assert np.abs(middles_of(follow(seen, TALL, FOLLOW)) - 0.7).max() < 0.02


def middles_of(boxes):
    return (boxes[:, 0] + boxes[:, 2] / 2) / 160
