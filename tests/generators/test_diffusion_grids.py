"""DDIM and DPM-Solver++ 2M beside diffusers' own schedulers, and over skipped steps."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from generators.diffusion_grids import DdimScheduler, DpmSolverMultistep
from generators.samplers import KarrasEuler, UniPcMultistep

STEPS = [1, 2, 5, 7, 20]
SETTINGS = [{"prediction": "epsilon", "offset": 1}, {"prediction": "v", "betas": "linear"},
            {"prediction": "v", "spacing": "trailing", "zero_snr": True},
            {"prediction": "epsilon", "spacing": "trailing", "betas": "linear"}]
SHAPE = (1, 2, 3, 4, 4)


def predicted(x, time):
    return (0.3 * x + np.sin(3 * x + time / 300)).astype(np.float32)


def theirs_of(kind, grid, **more):
    return kind(
        beta_schedule=grid.betas, beta_start=grid.least, beta_end=grid.most, timestep_spacing=grid.spacing,
        prediction_type={"v": "v_prediction"}.get(grid.prediction, grid.prediction),
        steps_offset=grid.offset, rescale_betas_zero_snr=grid.zero_snr, **more)


def assert_same_way(grid, theirs):
    theirs.set_timesteps(grid.steps)
    np.testing.assert_array_equal(grid.times[:-1], theirs.timesteps)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    y, solver = torch.from_numpy(x), grid.solver()
    for step, t in enumerate(theirs.timesteps):
        x = solver.advance(x, predicted(x, float(t)), step)
        y = theirs.step(torch.from_numpy(predicted(y.numpy(), float(t))), t, y, return_dict=False)[0]
        assert x.dtype == np.float32
    np.testing.assert_allclose(x, y, rtol=0, atol=3e-5 * float(y.abs().max()))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim_goes_the_way_of_diffusers(steps, settings, to_one):
    grid = DdimScheduler(steps, **settings, to_one=to_one)
    assert_same_way(grid, theirs_of(DDIMScheduler, grid, clip_sample=False, set_alpha_to_one=to_one))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_dpm_solver_goes_the_way_of_diffusers(steps, settings):
    grid = DpmSolverMultistep(steps, **settings)
    assert_same_way(grid, theirs_of(DPMSolverMultistepScheduler, grid))


GRIDS = [DdimScheduler(20, "v", "trailing", zero_snr=True), DpmSolverMultistep(20, "v", "trailing"),
         UniPcMultistep(20, 3.0),
         KarrasEuler(20, most=20.0, half=False)]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
def test_a_leap_goes_where_the_small_steps_of_a_straight_way_lead(grid):
    """Where clean latents and noise stay what they are, how far a solver leaps makes no difference."""
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, *SHAPE)).astype(np.float32)

    def at(step):
        if isinstance(grid, UniPcMultistep):
            return (1 - grid.sigmas[step]) * clean + grid.sigmas[step] * noise
        if isinstance(grid, KarrasEuler):
            return clean + grid.sigmas[step] * noise
        return np.float32(grid.kept[step] ** 0.5) * clean + np.float32((1 - grid.kept[step]) ** 0.5) * noise

    def prediction(step):
        if isinstance(grid, UniPcMultistep):
            return noise - clean
        if isinstance(grid, KarrasEuler):
            return (noise - grid.sigmas[step] * clean) / np.sqrt(1 + grid.sigmas[step] ** 2)
        return np.float32(grid.kept[step] ** 0.5) * noise - np.float32((1 - grid.kept[step]) ** 0.5) * clean

    x, solver = at(0), grid.solver()
    for step, to in [(0, 1), (1, 6), (6, 7), (7, 15), (15, 16), (16, 20)]:
        x = solver.leap(x, prediction(step), step, to)
        np.testing.assert_allclose(x, at(to), rtol=0, atol=1e-3 if to < 20 else 2e-3)


@pytest.mark.parametrize("make", [
    lambda: DpmSolverMultistep(21, "v", "trailing"), lambda: UniPcMultistep(21, 3.0)])
def test_after_a_leap_the_step_before_counts_by_its_own_length(make):
    """Clean latents that change evenly with the logarithm of signal to noise: a multistep solver sees that.

    With skipped steps taken for evaluated ones the change of all would seem to be that of one.
    """
    grid = make()
    kept = getattr(grid, "kept", None)
    sigma = grid.sigmas.astype(np.float64) if kept is None else (1 - kept) ** 0.5
    signal = 1 - sigma if kept is None else kept**0.5
    with np.errstate(divide="ignore"):
        lambdas = np.log(signal) - np.log(sigma)

    def prediction(x, step):
        clean = np.float32(0.3 * lambdas[step])
        return (x - clean) / np.float32(sigma[step]) if kept is None else (
            np.float32(signal[step]) * x - clean) / np.float32(sigma[step])

    def end(jumps):
        x, solver = np.ones(SHAPE, np.float32), grid.solver()
        for step, to in jumps:
            x = solver.leap(x, prediction(x, step), step, to)
        return float(x.mean())

    fine = end([(step, step + 1) for step in range(15)])
    coarse = end([(0, 1), (1, 2), (2, 5), (5, 6), (6, 7), (7, 10), (10, 11), (11, 13), (13, 15)])
    assert coarse == pytest.approx(fine, abs=0.02)


def test_latents_that_were_corrected_are_taken_as_they_are_by_unipc():
    grid, x = UniPcMultistep(5, 3.0), np.ones(SHAPE, np.float32)
    corrected, as_it_was = grid.solver(), grid.solver()
    a, b = (solver.leap(x, x, 0, 2) for solver in (corrected, as_it_was))
    moved = corrected.leap(a + 1, predicted(a, 0), 2, 3) - as_it_was.leap(b, predicted(b, 0), 2, 3)
    assert np.abs(moved).min() > 0.2


@pytest.mark.parametrize(("arguments", "reason"), [
    ({"steps": 0}, "steps from 1 to 1000, got 0"), ({"steps": 2000}, "steps from 1 to 1000, got 2000"),
    ({"steps": 5, "prediction": "x"}, "prediction must be one of epsilon, v, got 'x'"),
    ({"steps": 5, "spacing": "even"}, "spacing must be one of leading, trailing, got 'even'"),
    ({"steps": 5, "betas": "cosine"}, "betas must be one of scaled_linear, linear, got 'cosine'"),
])
@pytest.mark.parametrize("grid", [DdimScheduler, DpmSolverMultistep])
def test_a_grid_that_cannot_be_is_refused(grid, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        grid(**arguments)
