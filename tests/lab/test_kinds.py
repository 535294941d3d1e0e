"""The presenter as models of other kinds: what each predicts, and how plans are compared on it."""

import copy

import numpy as np
import pytest

from generators.samplers import FlowMatchEuler
from lab.kinds.models import Ddim, Dpm, Karras, UniPc
from lab.kinds.table import Row, halved, prepared, rows_of
from pipeline.batch.dataset import find_requests
from pipeline.sampler import Sampler
from pipeline.step_plan import StepPlan

SHAPE = (1, 16, 8, 12, 8)


class Exact:
    """An engine that knows clean latents and noise; it takes nothing but points on the way between them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.clean, self.noise = rng.standard_normal((2, *SHAPE)).astype(np.float32)

    def __call__(self, latents, time, **constants):
        np.testing.assert_allclose(latents, (1 - time) * self.clean + time * self.noise, atol=1e-2)
        return {"flow": self.noise - self.clean}


@pytest.mark.parametrize("kind", [Ddim, Dpm, Karras])
@pytest.mark.parametrize("step", [0, 7, 19])
def test_a_noising_kind_predicts_v_of_its_latents_without_an_approximation(kind, step):
    model, exact = halved(kind)(), Exact()
    a, s = model.shares(step)
    assert a**2 + s**2 == pytest.approx(1, abs=1e-6)
    latents = a * exact.clean + s * exact.noise
    if kind is Karras:  # whose latents are not of unit variance
        latents = exact.clean + model.scheduler.sigmas[step] * exact.noise
    constants = {"pose": np.zeros(SHAPE, np.float32), "reference": np.zeros(SHAPE[:2], np.float32)}
    v = model.denoise(exact, latents.astype(np.float32), step, constants, True)
    np.testing.assert_allclose(v, a * exact.noise - s * exact.clean, atol=2e-3)


@pytest.mark.parametrize("kind", [Ddim, Dpm, Karras, UniPc])
def test_a_kind_samples_to_the_clean_latents_by_its_own_scheduler(kind):
    """From its own noise, in all its steps, by a network that is right about every point on the way."""
    model, exact = halved(kind)(), Exact()
    start = model.noise(8, 1)
    exact.noise = start / model.scheduler.sigmas[0] if kind is Karras else start
    constants = {"pose": np.zeros(SHAPE, np.float32), "reference": np.zeros(SHAPE[:2], np.float32)}
    sampler = Sampler(model, {"denoise": exact})
    if kind is Karras:  # begins at sigma 700, where noise is all there is: clean latents are a 700th of it
        start = exact.clean + model.scheduler.sigmas[0] * exact.noise
        model.noise = lambda frames, seed: start
    np.testing.assert_allclose(sampler.sample(constants, 8, 1).latents, exact.clean, atol=1e-2)


def test_plans_of_a_kind_are_compared_on_fitted_and_on_fresh_videos(tiny, make_data, tmp_path):
    model = copy.copy(tiny)
    model.scheduler = FlowMatchEuler(4, 3.0)
    requests = find_requests(make_data({"a": 4, "b": 4, "c": 4}, size=(32, 48))).requests
    cases, grams = prepared(model, requests, "torch", tmp_path, lambda text: None)
    rows = list(rows_of("tiny", cases, grams, 2, 1))
    assert all(len(row.actions) == 4 and row.branches == StepPlan(row.actions).branches for row in rows)
    assert min(row.gain for row in rows) >= -1e-3, "a plan that fitted corrections worsen is run plain"
    assert all(np.isfinite(row.fresh_gain) for row in rows)
    again = prepared(model, requests, "torch", tmp_path, lambda text: pytest.fail(f"made again: {text}"))
    np.testing.assert_array_equal(again[1][0].products, grams[0].products)


def test_a_row_is_a_line_of_markdown():
    row = Row("ddim", "FS", 2, 30.04, 20.0, 31.0, 0.96, -0.1, 29.5)
    assert str(row) == "| ddim | FS | 2 | 30.0 | 20.0 | 31.0 | 1.0 | -0.1 | 29.5 |"
