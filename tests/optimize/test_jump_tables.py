"""Tables of what jumps miss: each entry is that of the jump as a plan makes it, and they rank plans."""

import numpy as np
import pytest

from generators.diffusion_grids import DpmSolverMultistep
from generators.samplers import FlowMatchEuler
from lab.kinds.predicted import predicted_error
from optimize.steps.fit import error, fit_plan, shrunk_rows
from optimize.steps.jump_tables import jump_errors, shallow_errors, weigh_kept
from optimize.steps.planner import Tables
from optimize.steps.trajectory import Gram, inner_products
from pipeline.step_plan import TERMS, StepPlan
from tests.denoisers import KINDS, mixtures
from tests.optimize.test_fit import PLANS
from tests.optimize.test_trajectory import run_of

GUIDANCE = 1.5


def gram_of(clip):
    """Inner products of a clip's base run."""
    steps = clip.scheduler.steps
    latents = [clip.base(step) for step in range(steps + 1)]
    made = [clip.predict(latents[step], step, "F") for step in range(steps)]
    return Gram.of(latents, [c for c, _ in made], [(clip.guidance - 1) * (c - u) for c, u in made])


def alone(seed, steps=5):
    """One run, its guided differences, and the Gram of it."""
    x, c, d = run_of(steps, seed)
    guided = [(GUIDANCE - 1) * each for each in d]
    return x, c, guided, Gram.of(x, c, guided)


def test_of_one_video_a_table_has_the_plain_jumps_and_inf_where_none_can_be():
    """Nothing says what others need, so nothing is corrected."""
    steps, grid = 5, FlowMatchEuler(5, shift=3.0)
    x, c, d, gram = alone(7)
    full, conditional = jump_errors([gram], grid)
    assert full.shape == (steps, steps, steps + 1) and conditional.shape == (steps, steps, steps, steps + 1)
    for i, k, m, j in np.ndindex(conditional.shape):
        can_be = m <= k < i < j
        assert np.isfinite(conditional[i, k, m, j]) == can_be
        if can_be:
            missed = grid.leap(x[i], c[i] + d[m], i, j) - x[j]
            assert conditional[i, k, m, j] == pytest.approx(np.mean(missed**2), rel=1e-3, abs=1e-9)
    for i, k, j in np.ndindex(full.shape):
        can_be = (k < i or i == k == 0) and i < j
        assert np.isfinite(full[i, k, j]) == can_be
        if can_be:
            missed = grid.leap(x[i], c[i] + d[i], i, j) - x[j]
            assert full[i, k, j] == pytest.approx(np.mean(missed**2), rel=1e-3, abs=1e-9)


def test_a_multistep_solver_leaps_by_its_own_history():
    grid = DpmSolverMultistep(5, "v", "trailing")
    x, c, d, gram = alone(3)
    full, _ = jump_errors([gram], grid)
    for i, k, j in [(2, 0, 4), (3, 2, 5), (3, 1, 4), (1, 0, 3)]:
        solver = grid.solver()
        solver.leap(x[k], c[k] + d[k], k, i)
        missed = solver.leap(x[i], c[i] + d[i], i, j) - x[j]
        assert full[i, k, j] == pytest.approx(np.mean(missed**2), rel=1e-3)


def test_the_base_models_own_steps_miss_nothing():
    full, _ = jump_errors([gram_of(clip) for clip in mixtures("dpm")[:2]], KINDS["dpm"])
    assert [full[i, max(i - 1, 0), i + 1] for i in range(20)] == [0] * 20
    assert full[5, 3, 6] > 0, "another history is not its own"


@pytest.mark.parametrize("kind", ["flow", "ddim"])
def test_an_entry_is_what_the_fit_leaves_of_a_jump_of_left_out_clips(kind):
    """Of one that begins on the base run's latents, its level fitted with the rest."""
    clips = mixtures(kind)[:3]
    grid = clips[0].scheduler
    full, _ = jump_errors([gram_of(clip) for clip in clips], grid)
    for k, i, j in [(5, 6, 12), (8, 11, 16), (8, 9, 20)]:
        products = []
        for clip in clips:
            (before,), (c, u) = clip.predict(clip.base(k), k, "C"), clip.predict(clip.base(i), i, "F")
            difference = (clip.guidance - 1) * (c - u)
            missed = clip.base(j) - grid.leap(clip.base(i), c + difference, i, j)
            products.append(inner_products([clip.base(i), c, difference, before, missed]))
        _, of_others = shrunk_rows(products, TERMS)
        left = [error(own, row) for own, row in zip(products, of_others, strict=True)]
        assert full[i, k, j] == pytest.approx(np.mean(left), rel=0.01)


def test_corrections_never_make_an_entry_larger_than_the_plain_jumps_is():
    grams = [gram_of(clip) for clip in mixtures("ddim")[:3]]
    full, conditional = jump_errors(grams, KINDS["ddim"])
    plain = [jump_errors([gram], KINDS["ddim"]) for gram in grams]
    for found, each in ((full, [one[0] for one in plain]), (conditional, [one[1] for one in plain])):
        there = np.isfinite(found)
        assert (found[there] <= np.mean(each, 0)[there] * (1 + 1e-9)).all()
        assert found[there].sum() < 0.7 * np.mean(each, 0)[there].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_errors_rank_plans_of_every_length_as_real_ones_do(kind):
    clips = mixtures(kind)[:3]
    grid = clips[0].scheduler
    full, cheap = jump_errors([gram_of(clip) for clip in clips], grid)
    gains = getattr(grid, "gains", np.ones(grid.steps + 1))
    tables = Tables(full, {"C": weigh_kept(full, cheap, 2.0)}, gains)
    real, predicted = [], []
    for actions in [*PLANS, "F" + "S" * 19, "FSSSSSSSSSFSSSSFSSFS", "FSSSSFSSFSFSFFFFFFFF"]:
        ends = fit_plan(StepPlan(actions), clips, grid).ends
        errors = [np.mean((end - clip.base(20)) ** 2) for end, clip in zip(ends, clips, strict=True)]
        real.append(np.log(np.mean(errors)))
        predicted.append(np.log(predicted_error(tables, actions)))
    assert np.corrcoef(real, predicted)[0, 1] > 0.9


def test_what_a_kept_delta_adds_is_weighed_and_never_below_nothing():
    full, conditional = jump_errors([alone(15)[-1]], FlowMatchEuler(5, shift=3.0))
    conditional[3, 2, 1, 5] = full[3, 2, 5] + 0.5
    conditional[3, 2, 0, 5] = full[3, 2, 5] / 2  # less than with its own delta
    weighed = weigh_kept(full, conditional, 8)
    assert weighed[3, 2, 1, 5] == pytest.approx(full[3, 2, 5] + 9 * 0.5)
    assert weighed[3, 2, 0, 5] == conditional[3, 2, 0, 5]
    np.testing.assert_array_equal(np.isinf(weighed), np.isinf(conditional))
    np.testing.assert_array_equal(weigh_kept(full, conditional, 0), conditional)


def test_a_video_of_another_length_counts_as_much():
    short, long = Gram.of(*run_of(4, 8)), Gram.of(*run_of(4, 9, (1, 4, 30, 12, 8)))
    grid = FlowMatchEuler(4, shift=3.0)
    apart = [jump_errors([gram], grid)[0] for gram in (short, long)]
    together = jump_errors([short, long, short, long], grid)[0]
    there = np.isfinite(together)
    assert (together[there] <= np.mean(apart, 0)[there] * (1 + 1e-9)).all()


def test_shallow_steps_that_predict_what_full_ones_do_have_their_errors_and_others_larger_ones():
    latents, conditional, delta = run_of(5, 21)
    noise = np.random.default_rng(3).standard_normal((2, *latents[0].shape)).astype(np.float32)
    pairs, grid = [(1, 0), (3, 1), (3, 2)], FlowMatchEuler(5, shift=3.0)
    exact = Gram.of(latents, conditional, delta, {(i, m): (conditional[i], delta[i]) for i, m in pairs})
    full, _ = jump_errors([exact], grid)
    found = shallow_errors([exact], grid)
    np.testing.assert_array_equal(full, jump_errors([Gram.of(latents, conditional, delta)], grid)[0])
    np.testing.assert_allclose(found[1, 0, 0, 3:], full[1, 0, 3:], rtol=1e-6)
    for k in (1, 2):
        np.testing.assert_allclose(found[3, k, 1, 5:], full[3, k, 5:], rtol=1e-6)
    assert np.isfinite(found).sum() == 4 + 2 * 2 + 2  # (1, 0) to 2..5; (3, 1) by k = 1, 2; (3, 2) by k = 2
    off = {(i, m): (conditional[i] + noise[0], delta[i] + noise[1]) for i, m in pairs}
    inexact = shallow_errors([Gram.of(latents, conditional, delta, off)], grid)
    assert (inexact[np.isfinite(found)] > 1.5 * found[np.isfinite(found)]).all()
    with pytest.raises(ValueError, match="with 3 and 0 shallow ones; capture them alike"):
        jump_errors([exact, Gram.of(latents, conditional, delta)], grid)
