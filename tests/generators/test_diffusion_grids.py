"""DDIM and DPM-Solver++ 2M beside diffusers' own schedulers, and over skipped steps."""

import sys

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from engines.errors import UsageError
from generators.diffusion_grids import DdimScheduler, DpmSolverMultistep, EulerScheduler
from generators.noise import step_noise
from generators.samplers import KarrasEuler, UniPcMultistep, open_solver

STEPS = [1, 2, 5, 7, 20]
SETTINGS = [{"prediction": "epsilon", "offset": 1}, {"prediction": "v", "betas": "linear"},
            {"prediction": "v", "spacing": "trailing", "zero_snr": True},
            {"prediction": "epsilon", "spacing": "trailing", "betas": "linear"},
            {"prediction": "epsilon", "spacing": "linspace"}]
SHAPE = (1, 2, 3, 4, 4)


def predicted(x, time):
    return (0.3 * x + np.sin(3 * x + time / 300)).astype(np.float32)


def theirs_of(kind, grid, **more):
    if kind is EulerDiscreteScheduler:
        more["final_sigmas_type"] = "zero"
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
        x = solver.leap(x, predicted(x, float(t)), step, step + 1)
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


@pytest.mark.parametrize(("kind", "theirs"), [
    (DdimScheduler, DDIMScheduler), (DpmSolverMultistep, DPMSolverMultistepScheduler),
    (EulerScheduler, EulerDiscreteScheduler)])
def test_trailing_places_are_those_of_diffusers_for_every_number_of_steps(kind, theirs):
    theirs = theirs_of(theirs, kind(1, spacing="trailing"))
    for steps in range(1, 1001):
        theirs.set_timesteps(steps)
        times = kind(steps, spacing="trailing").times
        np.testing.assert_array_equal(times, [*theirs.timesteps[:steps], -1])  # they have -1 for some


def test_sigmas_without_any_signal_at_the_first_step_are_finite_as_in_diffusers():
    for spacing in ("trailing", "linspace"):
        grid = EulerScheduler(7, "v", spacing, betas="linear", zero_snr=True)
        theirs = theirs_of(EulerDiscreteScheduler, grid)
        theirs.set_timesteps(7)
        np.testing.assert_allclose(grid.sigmas, theirs.sigmas, rtol=1e-4)
        assert grid.sigmas[0] == np.float32((2.0**24 - 1) ** 0.5)


def test_an_error_counts_less_the_more_noise_is_left_to_take_away():
    grid = EulerScheduler(25)
    assert grid.gains[-1] == 1 and (np.diff(grid.gains) > 0).all()
    assert grid.gains[0] == pytest.approx(1 / (1 + 14.6146**2), rel=1e-4)


def drawn(step):
    return step_noise(SHAPE, 3, step)


@pytest.mark.parametrize("steps", [2, 7])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise_goes_the_way_of_diffusers(steps, settings, eta):
    grid = DdimScheduler(steps, **settings, eta=eta)
    theirs = theirs_of(DDIMScheduler, grid, clip_sample=False, set_alpha_to_one=True)
    theirs.set_timesteps(steps)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    y, solver = torch.from_numpy(x), open_solver(grid, drawn)
    for step, t in enumerate(theirs.timesteps):
        x = solver.leap(x, predicted(x, float(t)), step, step + 1)
        there = torch.from_numpy(predicted(y.numpy(), float(t)))
        noise = torch.from_numpy(drawn(step))
        y = theirs.step(there, t, y, eta=eta, variance_noise=noise, return_dict=False)[0]
        assert x.dtype == np.float32
    assert np.isfinite(x).all()
    if not (eta == 1 and grid.zero_snr):  # diffusers takes a root of less than nothing there
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_euler_goes_the_way_of_diffusers_and_with_noise_that_of_its_ancestral_one(
        steps, settings, eta, monkeypatch):
    grid = EulerScheduler(steps, **settings, eta=eta)
    kind = EulerAncestralDiscreteScheduler if eta else EulerDiscreteScheduler
    theirs = theirs_of(kind, grid)
    theirs.set_timesteps(steps)
    module = sys.modules[kind.__module__]
    noise = map(drawn, range(steps))
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **rest: torch.from_numpy(next(noise)))
    np.testing.assert_array_equal(grid.times[:-1], theirs.timesteps)
    unit = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    x, y = grid.begin(unit), torch.from_numpy(unit) * theirs.init_noise_sigma
    solver = open_solver(grid, drawn)
    for step, t in enumerate(theirs.timesteps):
        seen = theirs.scale_model_input(y, t)
        np.testing.assert_allclose(grid.scaled(y.numpy(), step), seen, rtol=2e-6, atol=1e-6)
        x = solver.leap(x, predicted(grid.scaled(x, step), float(t)), step, step + 1)
        y = theirs.step(torch.from_numpy(predicted(seen.numpy(), float(t))), t, y, return_dict=False)[0]
        assert x.dtype == np.float32
    rounding = 2**-20 * float(grid.sigmas[0])  # a few of float32 latents at the first step
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-4 * float(y.abs().max()) + rounding)


@pytest.mark.parametrize("grid", [
    DdimScheduler(20, "v", "trailing", eta=1.0), EulerScheduler(20, "v", eta=1.0),
    DdimScheduler(20, eta=0.4), EulerScheduler(20, eta=0.4)], ids=str)
def test_a_leap_adds_the_noise_of_the_steps_that_it_leaves_out(grid):
    """Where the clean latents are always told right, a leap ends where the small steps do, noise and all."""
    clean, noise = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)

    def told(x, step):
        kept = grid.kept[step]
        signal, sigma = (kept**0.5, (1 - kept) ** 0.5) if isinstance(grid, DdimScheduler) else (
            1.0, float(grid.sigmas[step]))
        noise = (x - signal * clean) / sigma
        scale = 1.0 if isinstance(grid, DdimScheduler) else (sigma**2 + 1) ** -0.5
        v = (signal * noise - sigma * clean) * scale
        return np.float32(noise if grid.prediction == "epsilon" else v)

    def end(jumps, draw=drawn):
        x, solver = 3 * noise, open_solver(grid, draw)
        for step, to in jumps:
            x = solver.leap(x, told(x, step), step, to)
        return x

    fine = end([(step, step + 1) for step in range(15)])
    np.testing.assert_allclose(end([(0, 1), (1, 2), (2, 9), (9, 10), (10, 15)]), fine, rtol=0, atol=2e-3)
    other = end([(step, step + 1) for step in range(15)], lambda step: step_noise(SHAPE, 4, step))
    assert np.abs(other - fine).mean() > 0.1


def test_noise_of_a_step_is_told_by_seed_and_step_alone():
    numbers = [step_noise((4, 1000), seed, step) for seed, step in ((1, 2), (1, 3), (2, 2), (2**70, 2))]
    np.testing.assert_array_equal(numbers[0], step_noise((4, 1000), 1, 2))
    assert all(abs(each.std() - 1) < 0.05 and abs(each.mean()) < 0.05 for each in numbers)
    alike = np.corrcoef([each.ravel() for each in numbers]) - np.eye(4)
    assert np.abs(alike).max() < 0.06


@pytest.mark.parametrize("grid", [DdimScheduler(5, eta=0.5), EulerScheduler(5, eta=1.0)])
def test_a_scheduler_that_adds_noise_is_not_run_without(grid):
    with pytest.raises(UsageError, match="adds noise at its steps, .* tune with --technique, or .* .eta=0"):
        open_solver(grid)


@pytest.mark.parametrize("kind", [DdimScheduler, EulerScheduler])
def test_a_share_of_noise_is_between_none_and_all(kind):
    with pytest.raises(ValueError, match="from 0 to 1, got 1.5"):
        kind(5, eta=1.5)


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
    ({"steps": 5, "spacing": "even"}, "spacing must be one of leading, trailing, linspace, got 'even'"),
    ({"steps": 5, "betas": "cosine"}, "betas must be one of scaled_linear, linear, got 'cosine'"),
])
@pytest.mark.parametrize("grid", [DdimScheduler, DpmSolverMultistep])
def test_a_grid_that_cannot_be_is_refused(grid, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        grid(**arguments)
