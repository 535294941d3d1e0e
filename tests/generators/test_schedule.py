"""The sampling grid: where the denoiser is evaluated, and the steps between."""

import numpy as np
import pytest

from generators.samplers import FlowMatchEuler

SHIFTS = [0.2, 1.0, 3.0, 7.0, 50.0]


@pytest.mark.parametrize("steps", [1, 2, 25, 50])
def test_shift_one_is_linear(steps):
    np.testing.assert_allclose(FlowMatchEuler(steps).times, np.linspace(1, 0, steps + 1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_times_fall_from_one_to_zero(steps, shift):
    times = FlowMatchEuler(steps, shift).times
    assert times.shape == (steps + 1,) and times.dtype == np.float32
    assert times[0] == 1.0 and times[-1] == 0.0
    assert (np.diff(times) < 0).all()


def test_shift_three_moves_the_middle_to_three_quarters():
    np.testing.assert_allclose(FlowMatchEuler(2, 3.0).times, [1, 0.75, 0])


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_euler_along_the_true_flow_reaches_the_clean_latents(steps, shift):
    rng = np.random.default_rng(steps)
    clean, noise = rng.standard_normal((2, 4, 5)).astype(np.float32)
    grid, x = FlowMatchEuler(steps, shift), noise
    for step in range(steps):
        t = grid.times[step]
        np.testing.assert_allclose(x, (1 - t) * clean + t * noise, rtol=0, atol=5e-6)
        x = grid.leap(x, noise - clean, step, step + 1)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, clean, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("steps", "shift"), [(0, 1.0), (-1, 1.0), (4, 0.0), (4, -2.0)])
def test_a_grid_without_steps_or_with_a_shift_that_is_not_positive_is_refused(steps, shift):
    with pytest.raises(ValueError, match=f"steps >= 1 and shift > 0, got {steps} and {shift}"):
        FlowMatchEuler(steps, shift)
