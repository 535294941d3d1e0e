"""Searches that the tuner is held against: they propose valid plans, learn, and get as many runs."""

import importlib.util
import math

import pytest
from PIL import Image

from bench.quality_goal import Goal
from lab import plan_search
from lab.plan_search import (
    PROPOSERS,
    RandomSearch,
    best_so_far,
    described,
    draw_race,
    race,
    shaped,
    worth,
)
from optimize.steps.tuner import Tuner
from pipeline.step_plan import StepPlan
from tests.optimize.test_tuner import EXACT, STEPS, Bench

OPTUNA = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="lab/requirements.txt is not installed")
MARKED = [pytest.param(name, marks=() if name == "random search" else OPTUNA) for name in PROPOSERS]


@pytest.fixture
def tuner(tmp_path):
    def make(bench):
        return Tuner(bench, Goal(0.97), tmp_path / "trials.jsonl", lambda text: None)
    return make


@pytest.mark.parametrize("name", MARKED)
def test_every_proposal_is_a_plan_and_the_same_seed_proposes_the_same(name):
    def asked(seed):
        proposer, found = PROPOSERS[name](25, seed), []
        for _ in range(12):
            found.append(proposer.ask())
            proposer.tell(float(StepPlan(found[-1]).branches))
        return found
    assert all(len(actions) == 25 for actions in asked(1))
    assert asked(1) == asked(1) != asked(2)
    assert len(set(asked(1))) > 6


def test_random_search_tries_short_plans_as_often_as_long_ones():
    counts = [len(StepPlan(search.ask()).evaluated) for search in [RandomSearch(25, 0)] for _ in range(300)]
    assert min(counts) == 1 and max(counts) == 25
    assert 100 < sum(count <= 5 for count in counts) < 200


@pytest.mark.parametrize(("numbers", "actions"), [
    ((8, 4, 1.0, 1), "FSFSFSFS"), ((8, 8, 1.0, 2), "FCFCFCFC"), ((8, 1, 2.0, 3), "FSSSSSSS"),
    ((8, 2, 3.0, 2), "FSSSSSCS"), ((8, 6, 0.3, 2), "FSFSCSSS"),
])
def test_three_numbers_shape_a_plan(numbers, actions):
    assert shaped(*numbers) == actions


@OPTUNA
def test_tpe_learns_from_what_it_is_told():
    search = PROPOSERS["TPE over three numbers"](25, 0)
    branches = []
    for _ in range(60):
        branches.append(StepPlan(search.ask()).branches)
        search.tell(abs(branches[-1] - 7.0))
    assert sum(abs(each - 7) for each in branches[-15:]) < sum(abs(each - 7) for each in branches[:15]) / 2


@pytest.mark.parametrize("names", [["random search"], pytest.param(list(PROPOSERS), marks=OPTUNA)])
def test_each_search_has_the_planners_number_of_runs_and_a_race_goes_on(tuner, names, tmp_path):
    bench = Bench(5)
    found = race(tuner(bench), EXACT, names, 0, STEPS)
    assert list(found) == ["planner", *names] and len({len(trials) for trials in found.values()}) == 1
    assert best_so_far(found["planner"])[-1] == 5
    assert all(best_so_far(found[name])[-1] >= 5 for name in names)
    again = Bench(5)
    assert race(tuner(again), EXACT, names, 0, STEPS) == found and again.ran == []
    draw_race([found], tmp_path / "race.png")
    with Image.open(tmp_path / "race.png") as picture:
        assert picture.size == (960, 600)


def test_what_is_not_accepted_is_worth_less_than_any_plan_and_the_worse_the_less(tuner):
    tried = tuner(Bench(6))
    passing, near, far = (tried.trial(_recipe(actions), 1.0) for actions in ("FFFF", "FF", "F"))
    passing, near, far = (worth(trial, STEPS) for trial in (passing, near, far))
    assert passing == 8 < 2 * STEPS < near < far


def test_without_an_accepted_plan_the_best_is_none(tuner):
    tried = tuner(Bench(9))
    trials = [tried.trial(_recipe(actions), 1.0) for actions in ("FS", "FFFFFFFFF")]
    assert best_so_far(trials[:1]) == [math.inf]
    assert described([{"planner": trials}, {"planner": trials[1:]}]) == {"planner": [[None, 18.0], [18.0]]}


def test_without_optuna_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plan_search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(plan_search.UsageError, match=r"pip install -r lab/requirements\.txt"):
        PROPOSERS["TPE over letters"](25, 0)


def _recipe(actions):
    return type(EXACT)("exact", "openvino", "fp32", steps=StepPlan(actions))
