"""The test bed: inputs are functions of names, runs are kept by plan, verdicts count what is unflagged."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.judge import Judge
from bench.quality_goal import Goal
from bench.similarity import load_extractor
from lab.bed.inputs import PEOPLE, like
from lab.bed.verdict import Bench, Row, folder_of, rows, said, table
from pipeline.guard import Guard
from pipeline.recipe import Recipe
from pipeline.step_plan import StepPlan
from tests.extractors import write_extractor

GUARD = Guard(5, (0.0, 0.5))
RECIPE = Recipe("fast", steps=StepPlan("FF", guard=GUARD))


def test_like_inputs_are_the_same_every_time_and_no_two_show_one_person():
    samples, again = list(like())[:3], list(like())[:3]
    for one, other in zip(samples, again, strict=True):
        assert one.id == other.id and one.skeletons.tobytes() == other.skeletons.tobytes()
        assert one.image.tobytes() == other.image.tobytes() and one.skeletons.dtype == np.uint8
    assert len({sample.image.tobytes() for sample in samples}) == 3
    assert len(set(PEOPLE.values())) == len(PEOPLE), "parts share no people"


def test_runs_are_kept_by_plan_whatever_the_guard(tmp_path):
    other = replace(RECIPE, steps=replace(RECIPE.steps, guard=Guard(5, (0.0, 0.1))))
    assert folder_of(tmp_path, RECIPE) == folder_of(tmp_path, other)
    assert folder_of(tmp_path, RECIPE) != folder_of(tmp_path, replace(RECIPE, steps=StepPlan("FS")))


def recorded(path, change):
    """A run whose prediction changes by that much of its size at the second evaluated step."""
    first = np.ones((1, 4, 2, 2), np.float32)
    np.savez(path, conditional=np.stack([first, first / (1 - change)]), constant_pose=first)
    return np.load(path)


@pytest.mark.parametrize(("change", "fires"), [(0.2, False), (0.8, True)])
def test_a_recorded_run_says_what_the_guard_would_have_said(plain, tmp_path, change, fires):
    with recorded(tmp_path / "a.npz", change) as run:
        found = said(GUARD, run, plain)
        assert bool(found) is fires and said(None, run, plain) is None
    assert not fires or found.startswith("the prediction changed by 0.800 (limit 0.500)")


def test_a_sample_is_judged_once_against_its_base_run(plain, make_data, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.similarity.EXTRACTORS", write_extractor(tmp_path).parent)
    part = make_data({"a": 4, "b": 4})
    (part / "kinds.json").write_text(json.dumps({"a": "rendered", "b": "rendered"}))
    runs = folder_of(part, RECIPE)
    runs.mkdir(parents=True)
    (part / "outputs").mkdir(exist_ok=True)
    video = (part / "videos" / "a.mp4").read_bytes()
    for folder in (runs, part / "outputs"):
        (folder / "a.mp4").write_bytes(video)
    recorded(runs / "a.npz", 0.8).close()
    bench = Bench(Judge([load_extractor("grid")]), plain)
    (row,) = rows(bench, part, RECIPE, Goal(0.97))  # b has not been run
    assert row.id == "a" and row.similarity == pytest.approx(1) and row.fired
    assert not [why for why in row.below if "similarity" in why]
    (saved,) = runs.glob("a-*.json")
    saved.write_text(json.dumps({**json.loads(saved.read_text()), "similarity": 0.5}))
    (again,) = rows(bench, part, RECIPE, Goal(0.97))
    assert again.similarity == 0.5, "judged once"
    bench.judge.extractors[0].spec = replace(bench.judge.extractors[0].spec, sha256="of other weights")
    (other,) = rows(bench, part, RECIPE, Goal(0.97))
    assert other.similarity == pytest.approx(1), "by other weights judged anew"


def test_the_table_counts_samples_below_their_level_that_the_guard_lets_pass():
    found = [Row("a", "heldout", "real", ["x"], None), Row("b", "heldout", "real", ["y"], "pose is far"),
             Row("c", "heldout", "real", [], None), Row("d", "like", "like", [], "pose is far")]
    lines = list(table(found))
    assert "| heldout | real | 3 | 3 | 2 | 1 | 1 |" in lines and "| like | all | 1 | 1 | 0 | 0 | 1 |" in lines
    assert "\nunflagged: x" in lines and "\nfalse alarm: d: pose is far" in lines
