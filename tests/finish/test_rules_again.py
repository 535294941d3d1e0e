"""An evaluator written from the rules alone agrees with score and check on 2,000 random cases."""

import json
import random
from fractions import Fraction

import pytest

from finish.predictions import Frames, check_predictions, read_index
from finish.rules import factor, model_size, size_faults, size_of
from finish.score import score_file

CASES, WIDTH, HEIGHT = 2000, 64, 48


def right(prediction, case):
    """A frame of the video, and a box of three finite numbers, wider than nothing, inside the picture."""
    if type(prediction) is not dict or "frame" not in prediction or "bboxes" not in prediction:
        return False
    frame, box = prediction["frame"], prediction["bboxes"]
    if type(frame) is not int or frame not in range(case["frames"]) or type(box) is not list or len(box) != 3:
        return False
    if any(type(value) not in (int, float) for value in box):
        return False
    x, y, w = map(Fraction, box)
    a, b = map(Fraction, case["targetRatioWH"])
    return w > 0 and min(x, y) >= 0 and x + w <= WIDTH and y + w * b / a <= HEIGHT


def f_of(case, predictions):
    """2PR / (P + R) with exact numbers."""
    truth = {each["frame"]: each["bboxes"] for each in case["predictions"]}
    if not truth or not predictions:
        return Fraction(int(not truth and not predictions)), 0
    a, b = map(Fraction, case["targetRatioWH"])
    total, used, wrong = Fraction(0), set(), 0
    for each in predictions:
        if not right(each, case) or each["frame"] in used:
            wrong += 1
            continue
        used.add(each["frame"])
        if each["frame"] in truth:
            (x, y, w), (u, v, z) = (map(Fraction, box) for box in (each["bboxes"], truth[each["frame"]]))
            across = max(0, min(x + w, u + z) - max(x, u))
            down = max(0, min(y + w * b / a, v + z * b / a) - max(y, v))
            both = across * down
            total += both / (w * w * b / a + z * z * b / a - both)
    p, r = total / len(predictions), total / len(truth)
    return (2 * p * r / (p + r) if total else Fraction(0)), wrong


def box(dice, ratio, spoilt):
    a, b = ratio
    w = dice.randint(1, min(WIDTH, int(HEIGHT * a / b)))
    x, y = dice.randint(0, WIDTH - w), dice.randint(0, max(0, int(HEIGHT - w * b / a)))
    found = [value + dice.choice((0, 0, 0.25)) * (value > 1) for value in (x, y)] + [w]
    if x + w + 0.25 > WIDTH or y + w * b / a + 0.25 > HEIGHT:
        found = [x, y, w]
    if spoilt:
        found = dice.choice(([-1, y, w], [x, HEIGHT, w], [WIDTH, y, w], [x, y, 0], [x, y], [x, "y", w],
                             [x, y, True], None, [x, y, WIDTH + 1]))
    return found


def cases(dice):
    for n in range(CASES):
        ratio, frames = dice.choice(([9, 16], [16, 9], [1, 1], [4, 5])), dice.randint(1, 12)
        true = sorted(dice.sample(range(frames), dice.randint(0, frames)))
        truth = {"video_id": f"v{n}", "video": f"{n}.mp4", "targetRatioWH": ratio, "frames": frames,
                 "width": WIDTH, "height": HEIGHT,
                 "predictions": [{"frame": k, "bboxes": box(dice, ratio, False)} for k in true]}
        found = []
        for _ in range(dice.choice((0, 1, 3, frames))):
            odd = [frames, -1, "1", 1.0, True] if n % 3 == 0 else []
            frame = dice.choice([*range(frames), *true, *odd])
            found.append({"frame": frame, "bboxes": box(dice, ratio, n % 3 == 0 and dice.random() < 0.3)})
            if n % 50 == 0 and dice.random() < 0.2:
                found[-1] = dice.choice(({"frame": 0}, {"bboxes": [0, 0, 1]}, None, 3))
        yield truth, found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("rules"), list(cases(random.Random(29)))
    (folder / "truth").write_text("\n".join(json.dumps(truth) for truth, _ in made))
    (folder / "found").write_text("\n".join(json.dumps({**truth, "predictions": f}) for truth, f in made))
    return folder, made


def test_score_gives_every_video_the_f_of_the_rules(files):
    folder, made = files
    scores = score_file(folder / "found", folder / "truth")
    wanted = {truth["video_id"]: float(f_of(truth, found)[0]) for truth, found in made}
    assert len(scores) == CASES and 0.05 < sum(wanted.values()) / CASES < 0.9
    assert {name: each.f for name, each in scores.items()} == pytest.approx(wanted, abs=1e-12)


def test_check_finds_as_many_faults_on_each_line_as_the_rules(files):
    folder, made = files
    entries = read_index(folder / "truth")
    frames = {f"v{n}": Frames(truth["frames"], WIDTH, HEIGHT, tuple(truth["targetRatioWH"]))
              for n, (truth, _) in enumerate(made)}
    wrong, _ = check_predictions(folder / "found", entries, frames)
    found = [0] * CASES
    for sentence in wrong:
        found[int(sentence.split(":")[0].removeprefix("line ")) - 1] += 1
    # A video without truth has faults too, which change no score.
    wanted = [f_of({**truth, "predictions": [{"frame": -9, "bboxes": [0, 0, 1]}]}, f)[1] for truth, f in made]
    assert found == wanted and sum(wanted) > 300


def lines(path, *sizes):
    path.write_text("\n".join(json.dumps({"video_id": n, "predictions": [],
                                          **({} if size is None else {"model_size_mb": size})})
                              for n, size in enumerate(sizes)))
    return path


def test_sizes_are_valid_exactly_if_all_lines_state_one_allowed_number(tmp_path):
    dice, valid = random.Random(7), 0
    for _ in range(300):
        usual = dice.choice((None, 52.5, 100, 100.01, 500, 9000, 9000.5, 0, -1, "52", True))
        sizes = [usual if dice.random() < 0.9 else dice.choice((None, 52.5, 60)) for _ in range(4)]
        path = lines(tmp_path / "found", *sizes)
        stated = [size for size in sizes if size is not None]
        allowed = all(type(size) in (int, float) and 0 < size <= 9000 for size in stated)
        right = not stated or len(stated) == 4 and allowed and len(set(stated)) == 1
        later, wrong = size_faults(path)
        assert (later, not wrong) == (bool(stated), right), sizes
        if right and stated:
            part = 1.0 if stated[0] <= 100 else 0.95 if stated[0] <= 500 else 0.9
            assert factor(model_size(path)) == part
            valid += 1
    assert valid > 50


def test_a_round_that_is_named_is_held_to(tmp_path):
    without, stated = lines(tmp_path / "a", None, None), lines(tmp_path / "b", 5, 5)
    assert size_faults(without) == (False, []) and size_faults(stated) == (True, [])
    assert size_faults(without, True)[1] == ["line 1: model_size_mb missing", "line 2: model_size_mb missing"]
    assert "not known in the first round" in size_faults(stated, False)[1][0]
    mixed = size_faults(lines(tmp_path / "c", 5, 6, None))[1]
    assert mixed == ["line 2: model_size_mb is 6; on line 1 it is 5", "line 3: model_size_mb missing"]


def test_the_size_of_what_was_used_is_summed_once_and_rounded_up(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1_000_001))
    (tmp_path / "a.data").write_bytes(bytes(2_000_000))
    assert size_of([tmp_path / "a", tmp_path / "a"]) == 3.01
