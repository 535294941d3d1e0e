"""The evaluation holds covers and highlights against a truth that it knows, and draws what it found."""

from functools import partial

import numpy as np
import pytest

from finish.scorer import own_scorer
from finish.watching import Gaze
from lab.finish import evaluate
from lab.finish.evaluate import RATIOS, covers, stand_out
from lab.finish.ways import MODES, RULES
from lab.finish.wide import WideClip
from pipeline.video.reader import read_image
from tests.networks import brightness


@pytest.fixture
def scorer(tmp_path):
    return own_scorer(brightness(tmp_path / "brightness.onnx"))


def test_covers_are_held_against_first_frames_and_each_way_against_torch(tmp_path, scorer):
    found = covers({"torch:fp32": scorer, "other": scorer}, 2, tmp_path, lambda text: None)
    assert found["videos"] == 2 and found["better than the first"] + found["worse than the first"] <= 1
    assert 0 <= found["below the best frame, mean"] < 1
    assert found["against torch"]["other"] == {
        "same frame": 1, "as good": 1, "score difference, mean": 0, "score difference, most": 0}
    assert read_image(tmp_path / "covers.png").shape[0] == 332 and not list(tmp_path.glob("*.mp4"))


def test_highlights_are_held_against_plain_rules_in_both_ratios(tmp_path, scorer, monkeypatch):
    monkeypatch.setattr(evaluate, "WideClip", partial(WideClip, seconds=10))
    found = stand_out(Gaze(scorer), 1, tmp_path, lambda text: None)
    assert found["clips"] == 1 and set(RATIOS) < set(found)
    for name in RATIOS:
        assert set(found[name]) == {*MODES, *RULES}
        assert 0 <= found[name]["few"] <= found[name]["centre"] == found[name]["face"] <= 100
    sheet = read_image(tmp_path / "boxes.png")
    assert sheet.shape[0] == 480 and np.ptp(sheet) > 200
