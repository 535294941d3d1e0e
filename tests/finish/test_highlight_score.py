"""The metric of highlights by hand, and what the check says of a prediction file, line by line."""

import json
import math

import pytest

from engines.errors import InputError
from finish.predictions import Frames, check_predictions, read_index
from finish.score import overlap, score_file, score_video

SQUARE, TALL, WIDE = (1, 1), (9, 16), (2, 1)
A = [0, 0, 10]
THIRD = [5, 0, 10]  # shares a third with A: 50 of 150


def p(frame, box=A):
    return {"frame": frame, "bboxes": box}


@pytest.mark.parametrize(("predictions", "truth", "ratio", "expected"), [
    ([], [], SQUARE, 1),
    ([], [p(1)], SQUARE, 0),
    ([p(1)], [], SQUARE, 0),
    ([p(1)], [p(1)], SQUARE, 1),
    ([p(2)], [p(1)], SQUARE, 0),
    ([p(1, THIRD)], [p(1)], SQUARE, 1 / 3),
    ([p(1), p(2)], [p(1)], SQUARE, 2 / 3),  # P 1/2, R 1
    ([p(1)], [p(1), p(2)], SQUARE, 2 / 3),  # P 1, R 1/2
    ([p(1), p(2, THIRD)], [p(1), p(2)], SQUARE, 2 / 3),  # S 4/3 of 2 and 2
    ([p(1, THIRD), p(2, THIRD), p(3)], [p(1), p(2)], SQUARE, 4 / 15),  # S 2/3, P 2/9, R 1/3
    ([p(1, [0, 0, 20])], [p(1)], SQUARE, 1 / 4),
    ([p(1, [0, 8, 9])], [p(1, [0, 0, 9])], TALL, 1 / 3),  # 72 of 216
    ([p(1, [0, 5, 10])], [p(1)], WIDE, 0),  # they touch
    ([p(2), p(1)], [p(1), p(2)], SQUARE, 1),  # the order is the check's business
    ([p(1), p(1)], [p(1)], SQUARE, 2 / 3),  # repeated
    ([p(1, [95, 0, 10]), p(1)], [p(1)], SQUARE, 2 / 3),  # invalid, then right: no repetition
    ([p(1, [0, 95, 10])], [p(1)], SQUARE, 0),  # sticks out below
    ([p(1), p(2, [math.nan, 0, 10])], [p(1)], SQUARE, 2 / 3),
    ([p(1), p(10)], [p(1)], SQUARE, 2 / 3),  # frames are 0..9
    ([p(1), p(-1)], [p(1)], SQUARE, 2 / 3),
    ([p(1), p(2.0)], [p(1)], SQUARE, 2 / 3),
    ([p(1), {"frame": 2}], [p(1)], SQUARE, 2 / 3),
    ([p(1), p(2, [0, 0])], [p(1)], SQUARE, 2 / 3),
    ([p(1), p(2, [0, 0, 0])], [p(1)], SQUARE, 2 / 3),
])
def test_the_metric_equals_what_is_computed_by_hand(predictions, truth, ratio, expected):
    assert score_video(predictions, truth, Frames(10, 100, 100, ratio)) == pytest.approx(expected)


def test_overlap_is_symmetric_and_of_equal_boxes_one():
    assert overlap(A, THIRD, TALL) == overlap(THIRD, A, TALL)
    assert overlap(A, A, TALL) == pytest.approx(1)


def jsonl(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def line(name, *predictions, **more):
    return {"video_id": name, "targetRatioWH": [1, 1], "predictions": list(predictions), **more}


SHAPE = {"frames": 10, "width": 100, "height": 100}


def test_a_file_scores_the_mean_of_its_videos_and_a_missing_line_is_empty(tmp_path):
    truth = jsonl(tmp_path / "truth", *(line(n, p(1), **SHAPE) for n in "abc"), line("d", **SHAPE))
    found = jsonl(tmp_path / "found", line("b", p(1)), line("a", p(1, THIRD)))
    scores = score_file(found, truth)
    assert scores == {"a": pytest.approx(1 / 3), "b": 1, "c": 0, "d": 1}


def test_a_file_with_an_unknown_id_or_a_truth_without_shape_is_refused(tmp_path):
    truth = jsonl(tmp_path / "truth", line("a", p(1), **SHAPE))
    with pytest.raises(InputError, match="'z' is not in"):
        score_file(jsonl(tmp_path / "found", line("z")), truth)
    with pytest.raises(InputError, match="a lacks something: 'frames'"):
        score_file(jsonl(tmp_path / "found", line("a")), jsonl(tmp_path / "bare", line("a", p(1))))


@pytest.mark.parametrize(("bad", "said"), [
    (line("a", p(10)), "line 1: frame 10 is outside of 0..9"),
    (line("a", p(1), p(1)), "line 1: frame 1 is there twice"),
    (line("a", p(2), p(1)), "line 1: frame 1 comes after frame 2; expected ascending order"),
    (line("a", p(True)), "line 1: frame True is no whole number"),
    (line("a", p(1, [95, 0, 10])), "line 1: frame 1: box [95, 0, 10] of height 10 is not inside the picture"),
    (line("a", p(1, [0, math.nan, 10])), "expected three finite numbers x, y, w"),
    (line("a", {"frame": 1}), "line 1: a prediction needs frame and bboxes"),
    ({"video_id": "a"}, "line 1: predictions missing"),
    ({"predictions": []}, "line 1: video_id missing"),
    ({"video_id": "a", "predictions": None}, "line 1: predictions is NoneType; expected a list"),
    (line("z"), "line 1: video_id 'z' is not in the index"),
    ('{"video_id": "a", "predictions": [', "line 1: no JSON"),
    ("[1]", "line 1: no JSON object"),
])
def test_the_check_names_the_line_and_what_is_wrong_there(tmp_path, bad, said):
    path = jsonl(tmp_path / "found", bad, line("b"))
    frames = Frames(10, 100, 100, SQUARE)
    told = check_predictions(path, {"a": frames, "b": frames})
    assert any(said in each for each in told), told


def test_the_check_finds_repeated_and_missing_videos_and_nothing_wrong_with_right_ones(tmp_path):
    found = {name: Frames(10, 100, 100, SQUARE) for name in "ab"}
    right = jsonl(tmp_path / "right", line("b", p(1), p(2)), "", line("a"))
    assert check_predictions(right, found) == []
    wrong = jsonl(tmp_path / "wrong", line("b"), line("b"))
    assert check_predictions(wrong, found) == [
        "line 2: video_id 'b' is there already, on line 1", "video_id 'a' has no line"]


@pytest.mark.parametrize(("bad", "said"), [
    ("{", "line 2: no JSON"),
    ({"video_id": "b", "video": "../b.mp4", "targetRatioWH": [1, 1]}, "line 2: video is '../b.mp4'"),
    ({"video_id": "b", "video": "b.mp4", "targetRatioWH": [1, 0]}, r"line 2: targetRatioWH is \[1, 0\]"),
    ({"video_id": "b", "targetRatioWH": [1, 1]}, "line 2: video is None"),
    ({"video_id": "a", "video": "b.mp4", "targetRatioWH": [1, 1]}, "line 2: video_id 'a' is there twice"),
])
def test_an_index_names_its_first_bad_line(tmp_path, bad, said):
    good = {"video_id": "a", "video": "a.mp4", "targetRatioWH": [9, 16]}
    with pytest.raises(InputError, match=said):
        read_index(jsonl(tmp_path / "index", good, bad))
    assert read_index(jsonl(tmp_path / "index", good))["a"].ratio == TALL
