"""The search: it finds the fastest plan that keeps to the goal, spares runs, goes on when interrupted."""

from dataclasses import replace

import numpy as np
import pytest

from bench.quality_goal import Goal, Judged
from optimize.steps.jump_tables import jump_errors, weigh_kept
from optimize.steps.planner import Costs, Tables, front
from optimize.steps.trajectory import Gram
from optimize.steps.tuner import KEPT, Tuner, TuningError
from pipeline.guard import Guard
from pipeline.recipe import Recipe
from pipeline.step_plan import TERMS, StepPlan
from tests.denoisers import GRID, GUIDANCE, Clip

STEPS = 8
EXACT, QUICK = Recipe("exact", "openvino", "fp32"), Recipe("quick", "openvino", "bf16")


def gram_of(clip):
    """Inner products of a clip's base run."""
    latents = [clip.base(step) for step in range(STEPS + 1)]
    predictions = [clip.predict(latents[step], step, "F") for step in range(STEPS)]
    return Gram.of(latents, [c for c, _ in predictions], [(GUIDANCE - 1) * (c - u) for c, u in predictions])


class Bench:
    """Videos whose similarity falls with the plan's number of evaluated branches; bf16 costs half."""

    scheduler = GRID

    def __init__(self, need=5, broken=(), late=2, flattered=()):
        """late: the evaluated step from which on windows must overlap as ever. flattered: numbers of branches
        that pass where a clip is left out, and fail as they are.
        """
        self.need, self.broken, self.late, self.flattered = need, broken, late, flattered
        self.ran, self.judged, self.stop_after = [], [], None

    def capture(self, say):
        return [gram_of(Clip(seed)) for seed in range(3)]

    def costs(self, recipe, say):
        second = 0.5 if recipe.precision == "bf16" else 1.0
        return Costs(2 * second, {"C": second})

    def windows(self, recipe):
        """Ten each step, at most half of them spared."""
        plan = recipe.steps or StepPlan("F" * STEPS)
        spared = sum(5 - min(overlap, 5) for overlap in plan.overlaps)
        return 10 - spared / len(plan.evaluated)

    def run(self, recipe, say, enough):
        if self.stop_after is not None and len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        self.ran.append(recipe)
        apart = 0.02 * 2.0 ** (self.need - recipe.steps.branches)
        if recipe.steps.overlaps[self.late:] or recipe.precision in self.broken:
            apart = 0.5
        if recipe.steps.guard and recipe.steps.branches in self.flattered:
            apart = 0.5
        plan = StepPlan(recipe.steps.actions, overlaps=recipe.steps.overlaps,
                        guard=Guard(5, [1.0] * len(recipe.steps.evaluated)))
        videos = []
        while len(videos) < 5 and not enough(videos):
            videos.append(Judged(f"v{len(videos)}", 1 - apart * (1 + 0.01 * len(videos)), 40.0))
        self.judged.append(len(videos))
        return Recipe(recipe.name, recipe.backend, recipe.precision, "", plan), videos


@pytest.fixture
def tuner(tmp_path):
    def make(bench):
        return Tuner(bench, Goal(0.97), tmp_path / "trials.jsonl", lambda text: None)
    return make


def plans(weight):
    full, cheap = jump_errors(Bench().capture(None), GRID)
    tables = Tables(full, {"C": weigh_kept(full, cheap, weight)}, np.ones(STEPS + 1))
    return front(tables, Costs(2, {"C": 1}))


@pytest.mark.parametrize("need", [3, 5, 8])
def test_the_fastest_plan_of_the_front_that_passes_is_found(tuner, need):
    tuned = tuner(Bench(need)).tune([EXACT])
    known = [plan for weight in KEPT for plan in plans(weight)]
    enough = [plan for plan in known if StepPlan(plan.actions).branches >= need]
    assert tuned.best.recipe.steps.branches == min(StepPlan(plan.actions).branches for plan in enough)
    assert tuned.best.recipe.steps.guard and tuned.best.accepted
    assert tuned.runs == len(tuned.trials) < len(known) / 2
    assert tuned.trials[-1].recipe == tuned.best.recipe, "it is run once more as it is"


def test_the_engine_that_passes_faster_wins_and_one_that_never_passes_is_left(tuner):
    assert tuner(Bench()).tune([EXACT, QUICK]).best.recipe.name == "quick"


def test_recipes_that_differ_in_name_and_plan_alone_are_one_search(tuner, tmp_path):
    alone = tuner(Bench()).tune([EXACT])
    (tmp_path / "trials.jsonl").unlink()
    named = [replace(EXACT, name=name, steps=StepPlan(actions))
             for name, actions in (("a", "FSSSSSSS"), ("b", "FSSSFSSS"))]
    bench = Bench()
    together = tuner(bench).tune([EXACT, *named])
    assert together.best.recipe.steps == alone.best.recipe.steps
    actions = [recipe.steps.actions for recipe in bench.ran if not recipe.steps.guard]
    assert actions[:2] == ["FSSSSSSS", "FSSSFSSS"] and len(actions) == len(set(actions))


def test_an_engine_that_never_passes_is_left_for_the_next(tuner):
    assert tuner(Bench(broken=("bf16",))).tune([EXACT, QUICK]).best.recipe.name == "exact"


def test_numbers_that_are_not_finite_fail_one_recipe_and_are_recorded_so(tuner):
    class Overflowing(Bench):
        def run(self, recipe, say, enough):
            if recipe.precision == "bf16":
                self.ran.append(recipe)
                raise FloatingPointError("step 5 of 8: latents are not finite")
            return super().run(recipe, say, enough)
    tuned, again = tuner(Overflowing()).tune([EXACT, QUICK]), Overflowing()
    assert tuned.best.recipe.name == "exact"
    failed = {trial.reasons for trial in tuned.trials if trial.recipe.name == "quick"}
    assert failed == {("step 5 of 8: latents are not finite",)}
    assert tuner(again).tune([EXACT, QUICK]) == replace(tuned, runs=0) and not again.ran


def test_plans_that_could_not_be_the_fastest_are_not_run(tuner):
    bench = Bench()
    tuner(bench).tune([QUICK, EXACT])
    fastest = min(recipe.steps.branches for recipe in bench.ran if recipe.name == "quick" and
                  recipe.steps.branches >= 5)
    assert all(recipe.steps.branches * 1.0 < fastest * 0.5 for recipe in bench.ran if recipe.name == "exact")


@pytest.mark.parametrize("late", range(9))
def test_windows_overlap_less_at_as_many_first_steps_as_pass(tuner, late):
    bench = Bench(8, late=late)
    tuned = tuner(bench).tune([EXACT], (2, 0))
    evaluated = len(tuned.best.recipe.steps.evaluated)
    assert tuned.best.recipe.steps.overlaps == (0,) * min(late, evaluated)
    assert tuned.best.seconds == pytest.approx(
        bench.windows(tuned.best.recipe) * tuned.best.recipe.steps.branches)


def test_a_recipe_that_fails_as_it_is_is_not_taken(tuner):
    tuned = tuner(Bench(5, flattered=(5,))).tune([EXACT])
    assert tuned.best.recipe.steps.branches > 5
    assert any(trial.reasons for trial in tuned.trials if trial.recipe.steps.branches == 5)


def test_the_first_video_that_fails_ends_a_trial(tuner):
    bench = Bench()
    tuned = tuner(bench).tune([EXACT])
    assert bench.judged == [1 if trial.reasons else 5 for trial in tuned.trials]
    assert {1, 5} == set(bench.judged)


def test_what_passes_too_narrowly_is_not_accepted(tuner):
    class Scattered(Bench):
        def run(self, recipe, say, enough):
            fitted, videos = super().run(recipe, say, lambda videos: False)
            return fitted, [Judged(v.id, 1 - (1 - v.similarity) * 3.0 ** (i - 4), 40.0)
                            for i, v in enumerate(videos)]
    tuned = tuner(Scattered(5)).tune([EXACT])
    assert tuned.best.recipe.steps.branches > 5
    assert any(not trial.reasons and not trial.accepted for trial in tuned.trials)


def test_an_earlier_plan_is_tried_first_and_spares_what_cannot_be_faster(tuner):
    bench, plan = Bench(), StepPlan("FSCSSCSC", [[0.5] * TERMS] * 4, overlaps=(0,))
    tuned = tuner(bench).tune([EXACT])
    tuner(bench)._record.unlink()
    warm = Bench()
    again = tuner(warm).tune([Recipe("exact", "openvino", "fp32", steps=plan)])
    assert warm.ran[0].steps == StepPlan(plan.actions, overlaps=(0,))
    assert again.best.seconds < tuned.best.seconds and again.runs < tuned.runs


def test_after_an_interruption_finished_runs_are_not_made_again(tuner):
    bench = Bench()
    bench.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        tuner(bench).tune([EXACT, QUICK], (0, 2))
    again, whole = Bench(), Bench()
    resumed = tuner(again).tune([EXACT, QUICK], (0, 2))
    tuner(whole)._record.unlink()
    fresh = tuner(whole).tune([EXACT, QUICK], (0, 2))
    assert len(again.ran) == len(whole.ran) - 2 and resumed.best == fresh.best


def test_the_same_search_again_finds_the_same_recipe_however_long_engines_take_by_now(tuner):
    first, busy = tuner(Bench()).tune([EXACT, QUICK], (0,)), Bench()
    busy.costs = lambda recipe, say: Costs(1.0, {"C": 0.99})
    again = tuner(busy).tune([EXACT, QUICK], (0,))
    assert not busy.ran and again.best == first.best


def test_a_record_that_was_cut_off_in_a_line_is_read_up_to_there(tuner):
    first = tuner(Bench())
    first.tune([EXACT])
    text = first._record.read_text()
    first._record.write_text(text[:-40])
    for runs in (1, 0):  # the line after the one that was cut off is read too
        bench = Bench()
        tuner(bench).tune([EXACT])
        assert len(bench.ran) == runs


def test_a_record_that_was_cut_off_in_a_letter_is_read_too(tuner):
    tuner(Bench()).tune([EXACT])
    with tuner(Bench())._record.open("ab") as record:
        record.write('{"asked": "人'.encode()[:-1])
    bench = Bench()
    tuner(bench).tune([EXACT])
    assert not bench.ran


def test_where_nothing_passes_the_reasons_are_said(tuner):
    with pytest.raises(TuningError, match="no recipe keeps to the goal.*\nv0: similarity 0.5"):
        tuner(Bench(broken=("fp32",))).tune([EXACT])
