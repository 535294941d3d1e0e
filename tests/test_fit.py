"""Fitted jumps: exact where they can be, nearer to the base run than kept predictions, on other clips too."""

import numpy as np
import pytest

from generators.schedule import FlowGrid
from optimize.fit import fit_jump, fit_jumps, fit_levels, least_squares
from optimize.step_plan import StepPlan, Walk, combine, level_of

GUIDANCE = 1.5
GRID = FlowGrid(8, 3.0)


class Clip:
    """Two channels of 2x2 latents whose flow bends with time, and with what the clip is of."""

    def __init__(self, seed, frames=50, straight=False):
        rng = np.random.default_rng(seed)
        self.noise, self.clean = rng.standard_normal((2, 1, 2, frames, 2, 2)).astype(np.float32)
        self.straight, self.asked, self._base = straight, [], None

    def predict(self, latents, step, action):
        self.asked.append((step, action))
        t = 0.0 if self.straight else float(GRID.times[step])
        conditional = np.tanh(latents - self.clean) * (1 + t) + (0 if t else latents * 0 + 2)
        return (conditional, conditional - 0.3 * np.cos(3 * t) - 0.1 * latents)[:2 if action == "F" else 1]

    def base(self, step):
        if self._base is None:
            walk = Walk(StepPlan("F" * 8), GRID, GUIDANCE, self.noise)
            self._base = [self.noise]
            for each in range(8):
                walk.advance(each, *self.predict(walk.latents, each, "F"))
                self._base.append(walk.latents)
        return self._base[step]

    def distance(self, plan):
        """Of the plan's result from the base run's."""
        walk = Walk(plan, GRID, GUIDANCE, self.noise)
        for step in range(8):
            action = plan.actions[step]
            walk.advance(step, *(self.predict(walk.latents, step, action) if action != "S" else ()))
        return float(np.abs(walk.latents - self.base(8)).mean())


def test_what_the_terms_can_make_is_found_exactly_and_a_missing_term_has_no_part():
    terms = [list(np.random.default_rng(seed).standard_normal((4, 30, 2))) for seed in range(2)]
    goals = [2 * a - b + 0.5 * c + 3 * d for a, b, c, d in terms]
    assert least_squares(terms, goals)[0] == pytest.approx((2, -1, 0.5, 3), abs=1e-4)
    terms = [(a, b, None, d) for a, b, _, d in terms]
    assert least_squares(terms, [a + d for a, _, _, d in terms])[0] == pytest.approx((1, 0, 0, 1), abs=1e-4)


def test_clips_count_alike_whatever_their_length():
    ones, goals = [np.ones(1000), np.ones(10)], [np.ones(1000), 3 * np.ones(10)]
    factors, of_others = least_squares([(each, None, None, None) for each in ones], goals)
    assert factors == pytest.approx((2, 0, 0, 0), abs=1e-4)
    assert [row[0] for row in of_others] == pytest.approx([3, 1], abs=1e-4)


@pytest.mark.parametrize("actions", ["FSSFSSSS", "FSSCSFSC", "FFFFFFFF"])
def test_the_fitted_plan_walks_as_it_was_fitted(actions):
    """Where leaving a clip out changes nothing: alone, and beside one that is the same."""
    for clips in ([Clip(0)], [Clip(0), Clip(0)]):
        plan, ends = fit_jumps(StepPlan(actions), clips)
        assert len(plan.jumps) == len(plan.evaluated)
        for clip, end in zip(clips, ends, strict=True):
            assert clip.distance(plan) == pytest.approx(float(np.abs(end - clip.base(8)).mean()), abs=1e-5)


def test_a_clip_ends_where_a_fit_to_the_others_leads_it():
    clips = [Clip(seed) for seed in range(3)]
    _, ends = fit_jumps(StepPlan("FSSSSSSS"), clips)
    for clip, end in zip(clips, ends, strict=True):
        plan, _ = fit_jumps(StepPlan("FSSSSSSS"), [other for other in clips if other is not clip])
        assert clip.distance(plan) == pytest.approx(float(np.abs(end - clip.base(8)).mean()), abs=1e-6)


@pytest.mark.parametrize("actions", ["FSSSSSSS", "FSSFSSSS", "FSSCSFSC"])
def test_a_fitted_plan_is_nearer_to_the_base_run_on_clips_that_it_was_not_fitted_to(actions):
    plan, _ = fit_jumps(StepPlan(actions), [Clip(seed) for seed in range(5)])
    for clip in map(Clip, range(5, 10)):
        assert clip.distance(plan) < 0.5 * clip.distance(StepPlan(actions))


def test_with_every_step_evaluated_the_fit_finds_the_base_models_own_steps():
    plan, _ = fit_jumps(StepPlan("F" * 8), [Clip(seed) for seed in range(3)])
    assert max(clip.distance(plan) for clip in map(Clip, range(3, 6))) < 1e-3


def test_levels_are_fitted_apart_and_mend_what_is_alike_in_all_clips():
    """In each channel another constant, which no sum of the terms has."""
    rng = np.random.default_rng(0)
    terms = [list(rng.standard_normal((4, 1, 2, 9, 4, 4))) for _ in range(3)]
    offsets = np.array([0.5, -2.0]).reshape(1, 2, 1, 1, 1)
    goals = [a + 0.5 * d + level_of(b) + offsets for a, b, _, d in terms]
    row, _ = fit_levels(terms, goals, 1)
    assert row == pytest.approx((1, 1, 0, 0.5, 0.5, -2.0), abs=1e-3)
    found = combine((1, 0, 0, 0.5), terms[0], row, 1)
    np.testing.assert_allclose(found, goals[0], atol=1e-2)


@pytest.mark.parametrize("tint", [0.0, 1.0])
def test_levels_have_a_row_of_their_own_only_where_that_brings_other_clips_nearer(tint):
    """Not where all that is missed is each clip's own: another clip would only get that noise."""
    rng = np.random.default_rng(0)
    terms = [list(rng.standard_normal((4, 1, 2, 3, 4, 4))) for _ in range(4)]
    own = rng.normal(0, 0.01, (4, 1, 2, 3, 1, 1))
    goals = [a + 0.5 * d + tint + noise for (a, _, _, d), noise in zip(terms, own, strict=True)]
    row, level, ends = fit_jump(terms, goals, 1)
    assert any(level[4:]) == bool(tint) and (level[:4] == row) != bool(tint)
    assert max(np.abs(end - goal).max() for end, goal in zip(ends, goals, strict=True)) < 0.1


@pytest.mark.parametrize("frame_axis", [1, 2])
def test_levels_go_by_the_axis_of_channels(frame_axis):
    terms = [np.zeros((1, 3, 3, 2, 2), np.float32)] * 4
    found = combine((1, 0, 0, 0), terms, (1, 0, 0, 0, 1, 2, 3), 3 - frame_axis)
    assert np.moveaxis(found, 3 - frame_axis, 0)[:, 0, 0, 0, 0].tolist() == [1, 2, 3]


def test_each_clip_is_asked_once_for_each_evaluated_step():
    clips, ticks = [Clip(0), Clip(1)], []
    for clip in clips:
        clip.base(0)
        clip.asked.clear()
    fit_jumps(StepPlan("FSSCSFSS"), clips, lambda: ticks.append(1))
    assert clips[1].asked == [(0, "F"), (3, "C"), (5, "F")] and len(ticks) == 6
