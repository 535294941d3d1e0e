"""Fitted corrections: on clips that nothing was fitted to never worse than the plain plan, mostly better."""

from dataclasses import replace

import numpy as np
import pytest

from lab.kinds.free_factors import ends_by_free_factors
from optimize.steps.fit import error, fit_jump, fit_plan, shrunk_rows
from optimize.steps.trajectory import inner_products
from pipeline.guard import change
from pipeline.sampler_state import combine, level_of
from pipeline.step_plan import TERMS, StepPlan
from tests.denoisers import GRID, KINDS, Clip, mixtures


def fitted(actions, clips):
    return fit_plan(StepPlan(actions), clips, clips[0].scheduler)


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_plan_is_the_base_models_run_and_a_length_of_one_its_own_step(kind):
    """Bit for bit; and only the jump that leaves something out has a row."""
    clip, other = mixtures(kind)[:2]
    assert clip.end(StepPlan("F" * 20)).tobytes() == clip.base(20).tobytes()
    plan = fitted("FFFFFFFFSSSFFFFFFFFF", [clip, other]).plan
    for each in (plan, replace(plan, corrections=(), level_corrections=())):
        for state in clip.run(each):
            if state.step < 7:
                assert state.latents.tobytes() == clip.base(state.step + 1).tobytes()
    if plan.corrections:
        assert not np.any(plan.corrections[:7]) and not np.any(plan.corrections[8:])


PLANS = ["FSFFFFFFFFFFFFFFFFFF", "FSFSFSFSFSFSFSFSFSFS", "FFSFFSFFSFFSFFSFFSFF", "FSSSSSFSSSSFSSSFSSFS",
         "FSCSFCSSFCSFCSFCSCFC", "FCCCCFCCCCFCCCCFCCCC", "FFFFSSSSSSSSSSSSSSSS"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actions", PLANS)
@pytest.mark.parametrize("count", [2, 3])
def test_no_fitted_plan_is_worse_than_its_plain_form_on_clips_that_nothing_was_fitted_to(
        kind, actions, count):
    """0.5 dB on fresh clips; on those left out, which decide, not at all."""
    clips, fresh = mixtures(kind)[:count], mixtures(kind)[3:]
    found, plain = fitted(actions, clips), StepPlan(actions)
    for clip, end in zip(clips, found.ends, strict=True):
        assert clip.decibels(end) >= clip.decibels(clip.end(plain)) - 1e-3
    for clip in fresh:
        assert clip.decibels(clip.end(found.plan)) > clip.decibels(clip.end(plain)) - 0.5
    if actions in PLANS[3:5]:
        gains = [clip.decibels(clip.end(found.plan)) - clip.decibels(clip.end(plain)) for clip in fresh]
        assert min(gains) > 1, "long jumps are mended, not just left as they are"


def test_free_factors_at_every_step_feed_on_their_own_errors():
    """What corrections are held to, and why: a sum of terms fitted anew at each step ruins a plan of 19 F."""
    clips = mixtures("ddim")[:3]
    plan = StepPlan(PLANS[0])
    free = [clip.decibels(end) for clip, end in
            zip(clips, ends_by_free_factors(plan, clips, clips[0].scheduler, 2), strict=True)]
    plain = [clip.decibels(clip.end(plan)) for clip in clips]
    mended = [clip.decibels(end) for clip, end in zip(clips, fitted(PLANS[0], clips).ends, strict=True)]
    assert max(np.subtract(free, plain)) < -5 and min(np.subtract(mended, plain)) > -1e-3


def products_of(terms, missed):
    return [inner_products([*own, goal]) for own, goal in zip(terms, missed, strict=True)]


def test_what_the_terms_can_make_is_added_whole():
    terms = [list(np.random.default_rng(seed).standard_normal((4, 30, 2))) for seed in range(2)]
    goals = [2 * a - b + 0.5 * c + 3 * d for a, b, c, d in terms]
    row, of_others = shrunk_rows(products_of(terms, goals), TERMS)
    assert row == pytest.approx((2, -1, 0.5, 3), abs=1e-4) and of_others[0] == pytest.approx(row, abs=1e-4)


def test_as_much_is_added_as_the_others_foretell():
    """All of what clips share, a part of what they half agree on, nothing of what each has for itself."""
    x = np.random.default_rng(0).standard_normal(2000)
    shares = {}
    for spread in (0.05, 0.5, 3.0):
        factors = 1 + spread * np.array([-1.0, 0.0, 1.0])
        row, of_others = shrunk_rows(products_of([[x]] * 3, [factor * x for factor in factors]), 1)
        shares[spread] = row[0]
        for factor, other in zip(factors, of_others, strict=True):
            assert (factor - other[0]) ** 2 <= factor**2 + 1e-9
    assert shares[0.05] == pytest.approx(1) and 0 < shares[0.5] < 1 and shares[3.0] == 0


def test_a_clip_that_is_alone_says_nothing_of_others():
    x = np.random.default_rng(0).standard_normal(50)
    assert shrunk_rows(products_of([[x]], [2 * x]), 1)[0] == (0,)
    assert not any(map(any, fitted("FSSSSSSS", [Clip(0)]).plan.corrections))


def test_clips_count_alike_whatever_their_length():
    terms, goals = [[np.ones(1000)], [np.ones(10)]], [np.ones(1000), 1.1 * np.ones(10)]
    row, of_others = shrunk_rows(products_of(terms, goals), 1)
    assert row == pytest.approx((1.05,), abs=1e-4)
    assert [each[0] for each in of_others] == pytest.approx([1.1, 1], abs=1e-4)


def test_the_error_of_a_row_is_what_it_leaves():
    a, b, goal = np.random.default_rng(0).standard_normal((3, 40))
    assert error(inner_products([a, b, goal]), (2, -1)) == pytest.approx(np.mean((goal - 2 * a + b) ** 2))


@pytest.mark.parametrize("actions", ["FSSFSSSS", "FSSCSFSC", "FFFFFFFF"])
def test_the_fitted_plan_walks_as_it_was_fitted(actions):
    """Where leaving a clip out changes nothing: beside one that is the same."""
    clips = [Clip(0), Clip(0)]
    found = fitted(actions, clips)
    assert {len(seen) for seen in found.changes} == {len(found.plan.evaluated)}
    for clip, end in zip(clips, found.ends, strict=True):
        assert clip.distance(found.plan) == pytest.approx(float(np.abs(end - clip.base(8)).mean()), abs=1e-5)


@pytest.mark.parametrize("actions", ["FSSSSSSS", "FSSFSSSS", "FSSCSFSC"])
def test_a_fitted_plan_is_nearer_to_the_base_run_on_clips_that_it_was_not_fitted_to(actions):
    plan = fitted(actions, [Clip(seed) for seed in range(5)]).plan
    for clip in map(Clip, range(5, 10)):
        assert clip.distance(plan) < 0.6 * clip.distance(StepPlan(actions))


def test_levels_are_fitted_apart_and_mend_what_is_alike_in_all_clips():
    """In each channel another constant, which no sum of the terms has."""
    rng = np.random.default_rng(0)
    terms = [list(rng.standard_normal((4, 1, 2, 9, 4, 4))) for _ in range(3)]
    offsets = np.array([0.5, -2.0]).reshape(1, 2, 1, 1, 1)
    missed = [a + 0.5 * d + level_of(b) + offsets for a, b, _, d in terms]
    (row, level), added = fit_jump(terms, missed, 1)
    assert level == pytest.approx((1, 1, 0, 0.5, 0.5, -2.0), abs=1e-3)
    assert row == pytest.approx((1, 0, 0, 0.5), abs=1e-3)
    np.testing.assert_allclose(added[0], missed[0], atol=2e-2)


@pytest.mark.parametrize("tint", [0.0, 1.0])
def test_levels_have_a_row_of_their_own_only_where_that_brings_other_clips_nearer(tint):
    """Not where all that is missed is each clip's own: another clip would only get that noise."""
    rng = np.random.default_rng(0)
    terms = [list(rng.standard_normal((4, 1, 2, 3, 4, 4))) for _ in range(4)]
    own = rng.normal(0, 0.01, (4, 1, 2, 3, 1, 1))
    missed = [a + 0.5 * d + tint + noise for (a, _, _, d), noise in zip(terms, own, strict=True)]
    (row, level), added = fit_jump(terms, missed, 1)
    assert any(level[4:]) == bool(tint) and (level[:4] == row) != bool(tint)
    assert max(np.abs(each - goal).max() for each, goal in zip(added, missed, strict=True)) < 0.1


@pytest.mark.parametrize("frame_axis", [1, 2])
def test_levels_go_by_the_axis_of_channels(frame_axis):
    terms = [np.zeros((1, 3, 3, 2, 2), np.float32)] * 4
    found = combine((1, 0, 0, 0), terms, (1, 0, 0, 0, 1, 2, 3), 3 - frame_axis)
    assert np.moveaxis(found, 3 - frame_axis, 0)[:, 0, 0, 0, 0].tolist() == [1, 2, 3]


def test_each_clip_is_asked_once_for_each_evaluated_step_of_the_plain_plan_and_of_the_fitted_one():
    clips, ticks = [Clip(0), Clip(1)], []
    for clip in clips:
        clip.base(0)
        clip.asked.clear()
    fit_plan(StepPlan("FSSCSFSS"), clips, GRID, lambda: ticks.append(1))
    assert clips[1].asked == [(0, "F"), (3, "C"), (5, "F")] * 2 and len(ticks) == 12
    clips[0].asked.clear()
    fit_plan(StepPlan("F" * 8), clips, GRID)
    assert len(clips[0].asked) == 8, "where nothing is left out there is nothing to fit"


def test_what_changed_in_each_clip_since_the_evaluation_before_is_told():
    clips = [Clip(0), Clip(1)]
    changes = fitted("FFFFFFFF", clips).changes
    for clip, seen in zip(clips, changes, strict=True):
        both = (clip.predict(clip.base(step), step, "C")[0] for step in (1, 0))
        assert seen[0] == 0 and seen[1] == pytest.approx(change(*both, 2), rel=1e-3)
