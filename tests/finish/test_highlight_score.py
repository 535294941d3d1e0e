"""The metric of highlights by hand, and what the check says of a prediction file, line by line."""

import json
import math

import pytest

import finish.__main__ as script
from engines.errors import InputError
from finish.predictions import Entry, Frames, check_predictions, dumped, read_index
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
    assert score_video(predictions, truth, Frames(10, 100, 100, ratio)).f == pytest.approx(expected)


def test_overlap_is_symmetric_and_of_equal_boxes_one():
    assert overlap(A, THIRD, TALL) == overlap(THIRD, A, TALL)
    assert overlap(A, A, TALL) == pytest.approx(1)
    assert overlap([0, 0, 1e-200], [0, 0, 1e-200], TALL) == pytest.approx(1)
    assert overlap([0, 0, 1e-200], [0, 0, 2e-200], TALL) == pytest.approx(1 / 4)
    assert overlap([0, 0, 1e-200], A, TALL) == 0


def jsonl(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def line(name, *predictions, **more):
    given = {"video_id": name, "video": f"{name}.mp4", "targetRatioWH": [1, 1]}
    return {**given, "predictions": list(predictions), **more}


SHAPE = {"frames": 10, "width": 100, "height": 100}


def test_a_file_scores_the_mean_of_its_videos_and_a_missing_line_is_empty(tmp_path):
    truth = jsonl(tmp_path / "truth", *(line(n, p(1), **SHAPE) for n in "abc"), line("d", **SHAPE))
    found = jsonl(tmp_path / "found", line("b", p(1)), line("a", p(1, THIRD)))
    scores = score_file(found, truth)
    assert [scores[name].f for name in "abcd"] == [pytest.approx(1 / 3), 1, 0, 1]
    assert [list(each.overlaps) for each in scores.values()] == [[pytest.approx(1 / 3)], [1], [], []]


def test_a_file_with_an_unknown_id_or_a_truth_without_shape_is_refused(tmp_path):
    truth = jsonl(tmp_path / "truth", line("a", p(1), **SHAPE))
    with pytest.raises(InputError, match="'z' is not in"):
        score_file(jsonl(tmp_path / "found", line("z")), truth)
    with pytest.raises(InputError, match="the truth of 'a' cannot be used: frames is None"):
        score_file(jsonl(tmp_path / "found", line("a")), jsonl(tmp_path / "bare", line("a", p(1))))


@pytest.mark.parametrize(("bad", "said"), [
    (line("a", p(10)), "line 1: frame 10 is outside of 0..9"),
    (line("a", p(1), p(1)), "line 1: frame 1 is there twice"),
    (line("a", p(True)), "line 1: frame True is no whole number"),
    (line("a", p(1, [95, 0, 10])), "line 1: frame 1: box [95, 0, 10] of height 10 is not inside the picture"),
    (line("a", p(1, [0, math.nan, 10])), "expected three finite numbers x, y, w"),
    (line("a", {"frame": 1}), "line 1: a prediction needs frame and bboxes"),
    ({"video_id": "a"}, "line 1: predictions missing"),
    (line("a", p(1, [1e-6, 0, 100])), "is not inside the picture"),
    (line("a", p(1, [-1e-6, 0, 9])), "is not inside the picture"),
    (line("a", p(1, [0, 0, -1])), "line 1: frame 1: box [0, 0, -1] is not wider than 0"),
    (line("a", video="b.mp4"), "line 1: video is 'b.mp4'; the index has 'a.mp4'"),
    (line("a", targetRatioWH=[16, 9]), "line 1: targetRatioWH is [16, 9]; the index has [1, 1]"),
    ({"video_id": "a", "targetRatioWH": [1, 1], "predictions": []}, "line 1: video missing"),
    ({"video_id": "a", "video": "a.mp4", "predictions": []}, "line 1: targetRatioWH missing"),
    ("[" * 100_000, "line 1: no JSON"),
    (line("a", {"frame": [1], "bboxes": None}), "line 1: frame [1] is no whole number"),
    (line("a", p(1, None)), "line 1: frame 1: bboxes is None; expected three finite numbers"),
    (line(True), "line 1: video_id True is not in the index"),
    ({"predictions": []}, "line 1: video_id missing"),
    ({"video_id": "a", "predictions": None}, "line 1: predictions is NoneType; expected a list"),
    (line("z"), "line 1: video_id 'z' is not in the index"),
    ('{"video_id": "a", "predictions": [', "line 1: no JSON"),
    ("[1]", "line 1: no JSON object"),
])
def test_the_check_names_the_line_and_what_is_wrong_there(tmp_path, bad, said):
    path = jsonl(tmp_path / "found", bad, line("b"))
    wrong, _ = check_predictions(path, *asked("a", "b"))
    assert any(said in each for each in wrong), wrong


def test_the_check_finds_repeated_and_missing_videos_and_nothing_wrong_with_right_ones(tmp_path):
    right = jsonl(tmp_path / "right", line("b", p(1), p(2), targetRatioWH=[1.0, 1.0]), "", line("a"))
    assert check_predictions(right, *asked("a", "b")) == ([], [])
    wrong = jsonl(tmp_path / "wrong", line("b"), line("b"))
    assert check_predictions(wrong, *asked("a", "b"))[0] == [
        "line 2: video_id 'b' is there already, on line 1", "video_id 'a' has no line"]


def test_another_order_is_only_advised_against_and_rounding_is_no_fault(tmp_path):
    path = jsonl(tmp_path / "found", line("a", p(2), p(1), p(3, [0.1 + 0.2, 0, 99.7])))
    advice = ["line 1: frame 1 comes after frame 2; ascending order is recommended"]
    assert check_predictions(path, *asked("a")) == ([], advice)


def asked(*names):
    """The entries of an index, and ten frames of 100 x 100 for each."""
    given = {name: {"video_id": name, "video": f"{name}.mp4", "targetRatioWH": [1, 1]} for name in names}
    entries = {name: Entry(name, "video", f"{name}.mp4", SQUARE, each) for name, each in given.items()}
    return entries, {name: Frames(10, 100, 100, SQUARE) for name in names}


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


@pytest.mark.parametrize(("given", "name", "key", "file"), [
    ({"video_id": 7, "video": "a.mp4"}, "7", "video", "a.mp4"),
    ({"video_id": 0, "video_path": "videos/a.mp4"}, "0", "video_path", "videos/a.mp4"),
    ({"video_id": "a", "file_name": "/far/a.mp4"}, "a", "file_name", "a.mp4"),
    ({"video_id": "a", "path": "a.mp4"}, "a", "path", "a.mp4"),
])
def test_an_index_may_have_numbers_for_ids_and_other_words_for_the_file(tmp_path, given, name, key, file):
    (tmp_path / "a.mp4").touch()
    entry = read_index(jsonl(tmp_path / "index", {**given, "targetRatioWH": [1, 1]}))[name]
    assert (entry.key, entry.file, entry.video(tmp_path)) == (key, file, tmp_path / "a.mp4")
    found = jsonl(tmp_path / "found", {**entry.line, "predictions": []})
    frames = {name: Frames(10, 100, 100, SQUARE)}
    assert check_predictions(found, {name: entry}, frames) == ([], [])
    other = jsonl(tmp_path / "other", {**entry.line, key: "b.mp4", "predictions": []})
    assert f"{key} is 'b.mp4'" in check_predictions(other, {name: entry}, frames)[0][0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path, encoding):
    text = json.dumps({"video_id": "\u4eba", "video": "a.mp4", "targetRatioWH": [1, 1]}, ensure_ascii=False)
    (tmp_path / "index").write_text(f"{text}\r\n\r\n", encoding=encoding)
    assert list(read_index(tmp_path / "index")) == ["\u4eba"]


def test_half_a_pair_of_utf_16_is_kept_and_other_lines_stay_as_they_are():
    half, whole = {"video_id": "\ud800\u4eba"}, {"video_id": "\u4eba"}
    assert json.loads(dumped(half)) == half and dumped(whole) == '{"video_id": "\u4eba"}\n'.encode()


@pytest.mark.parametrize("bad", [
    {"frames": "10"}, {"width": None}, {"height": 0}, {"frames": 2.5}, {"targetRatioWH": None},
    {"predictions": [p("1")]}, {"predictions": [p(1, None)]}, {"predictions": [None]},
    {"predictions": [p(1), p(1)]}, {"predictions": None}, {"video_id": None}, {"width": True},
])
def test_truth_that_cannot_be_used_is_an_input_error(tmp_path, bad, run_main):
    found = jsonl(tmp_path / "found", line("a", p(1)))
    truth = jsonl(tmp_path / "truth", {**line("a", p(1), **SHAPE), **bad})
    answer = run_main(script, "score", found, truth)
    assert answer.status == 3 and str(truth) in answer.err


@pytest.mark.parametrize("text", ["\n \n", "[" * 100_000, "{", '{"video_id": NaN}'])
def test_a_file_without_truth_or_json_is_an_input_error(tmp_path, text, run_main):
    (tmp_path / "truth").write_text(text)
    answer = run_main(script, "score", jsonl(tmp_path / "found", line("a")), tmp_path / "truth")
    assert answer.status == 3 and "truth" in answer.err and answer.out == ""


def test_the_score_tells_the_overlap_of_each_prediction_and_the_mean(tmp_path, run_main):
    truth = jsonl(tmp_path / "truth", *(line(n, p(1), **SHAPE) for n in "ab"))
    found = jsonl(tmp_path / "found", line("a", p(1, THIRD), p(5)), line("b", p(1)))
    assert run_main(script, "score", found, truth).out.splitlines() == [
        "'a': F 0.2222, IoU 0.3333 0.0000", "'b': F 1.0000, IoU 1.0000",
        "mean IoU 0.4444 of 3 predictions", "61.1111"]
    told = json.loads(run_main(script, "score", found, truth, "--json").out)
    assert told["mean_iou"] == pytest.approx(4 / 9) and told["videos"]["b"] == {"f": 1.0, "iou": [1.0]}
    nothing = jsonl(tmp_path / "nothing", line("a"))
    assert json.loads(run_main(script, "score", nothing, truth, "--json").out)["mean_iou"] is None


def test_a_video_is_found_however_the_accents_of_its_name_are_stored(tmp_path):
    apart, one = "Zoe\u0301.mp4", "Zo\u00e9.mp4"
    index = jsonl(tmp_path / "index", {"video_id": "a", "video": f"clips/{one}", "targetRatioWH": [1, 1]})
    entry = read_index(index)["a"]
    assert entry.video(tmp_path) == tmp_path / "clips" / one
    (tmp_path / apart).touch()
    assert entry.video(tmp_path) == tmp_path / apart
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / apart).touch()
    assert entry.video(tmp_path) == tmp_path / "clips" / apart
