"""UniPC and diffusers' flow grid beside diffusers' own schedulers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from generators.samplers import FlowMatchEuler, UniPcMultistep

RECORDED = Path(__file__).parent / "recorded" / "wan_unipc.npz"
STEPS = [1, 2, 3, 5, 20]


def flow(x, sigma):
    return 0.3 * x + np.sin(3 * x + sigma)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_the_way_is_that_of_diffusers_solver(steps, shift):
    theirs = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps)
    grid = UniPcMultistep(steps, shift)
    np.testing.assert_array_equal(grid.sigmas, theirs.sigmas)
    np.testing.assert_allclose(grid.times[:-1] * 1000, theirs.timesteps, rtol=0, atol=1e-4)
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4, 4)).astype(np.float32)
    y, solver = torch.from_numpy(x), grid.solver()
    for step, t in enumerate(theirs.timesteps):
        x = solver.leap(x, flow(x, grid.sigmas[step]), step, step + 1)
        y = theirs.step(torch.from_numpy(flow(y.numpy(), grid.sigmas[step])), t, y, return_dict=False)[0]
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("steps", "shift"), [(20, 5.0), (4, 3.0), (1, 5.0)])
def test_on_wans_own_grid_the_way_is_that_of_wans_own_solver(steps, shift):
    """Recorded from Wan2.2, 42bf4cf: FlowUniPCMultistepScheduler(shift=1).set_timesteps(steps, shift=shift).

    torch.manual_seed(0), x = torch.randn(1, 4, 3, 2, 2), then at each timestep t
    x = scheduler.step(torch.sin(3 * x) + x * float(t) / 1000, t, x)[0]; np.savez_compressed of all of it.
    """
    theirs, key = np.load(RECORDED), f"{steps}_{shift:g}"
    grid, x = UniPcMultistep(steps, shift, 0.999, 0.0), theirs["noise"]
    np.testing.assert_array_equal(grid.sigmas, theirs[f"{key}_sigmas"])
    np.testing.assert_allclose(grid.times[:-1] * 1000, theirs[f"{key}_times"], rtol=0, atol=1e-4)
    solver = grid.solver()
    for step in range(steps):
        x = solver.leap(x, np.sin(3 * x) + x * grid.times[step], step, step + 1)
    np.testing.assert_allclose(x, theirs[f"{key}_latents"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", STEPS)
def test_a_solver_knows_nothing_of_the_request_before(steps):
    grid, x = UniPcMultistep(steps, 3.0), np.ones((1, 16, 2, 2, 2), np.float32)

    def end():
        latents, solver = x, grid.solver()
        for step in range(steps):
            latents = solver.leap(latents, flow(latents, grid.sigmas[step]), step, step + 1)
        return latents

    assert end().tobytes() == end().tobytes()
    assert FlowMatchEuler(steps).solver() == FlowMatchEuler(steps)  # no memory, no need of another


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_with_diffusers_least_time_a_flow_grid_is_diffusers(steps, shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    grid = FlowMatchEuler(steps, shift, least=1e-3)
    # Theirs comes to the least time in float32: at shift 5 one rounding away, at 3 none.
    np.testing.assert_allclose(grid.times, theirs.sigmas, rtol=0, atol=0 if shift == 3.0 else 1e-7)
    assert replace(FlowMatchEuler(3, 7.0, 1e-3), steps=steps, shift=shift) == grid


@pytest.mark.parametrize(("steps", "shift"), [(0, 1.0), (4, 0.0)])
def test_a_grid_that_cannot_be_is_refused(steps, shift):
    with pytest.raises(ValueError, match=f"steps >= 1 and shift > 0, got {steps} and {shift}"):
        UniPcMultistep(steps, shift)
