"""Techniques at tiny size: gentle ones change nothing, others evaluate less, none mixes up what it keeps."""

from itertools import product

import numpy as np
import pytest

from engines.backends.torch_backend import TorchEngine
from engines.errors import EngineError
from pipeline.caches.network_hooks import find_transformer
from pipeline.recipe import BASELINE
from pipeline.sampler import Sampler
from pipeline.window_denoiser import WindowBranch
from tests.techniques import ALL, ANY_ENGINE, FRAMES, MARKED, STEPS, recipe_of

pytestmark = pytest.mark.usefixtures("one_thread", "calibrated")


class Started:
    """A recipe's generator with a torch engine of its own; rows: of each evaluation of the middle block."""

    def __init__(self, small, name=None, settings=()):
        recipe = recipe_of(name, settings) if name else BASELINE
        self.generator, self.open_denoiser = recipe.adapt(small), recipe.open_denoiser
        module = self.generator.build("denoise")
        self.rows = []
        query = find_transformer(module).blocks[1].attn1.to_q
        query.register_forward_hook(lambda _, inputs, output: self.rows.append(len(output)))
        self.engines = {"denoise": TorchEngine(small.components["denoise"], module)}

    def run(self, constants, seed=1, frames=FRAMES):
        sampler = Sampler(self.generator, self.engines, None, self.open_denoiser)
        return sampler.sample(constants, frames, seed).latents


def conditions(seed=0, frames=FRAMES):
    rng = np.random.default_rng(seed)
    pose, reference = rng.standard_normal((1, 16, frames, 6, 4)), rng.standard_normal((1, 16, 6, 4))
    return {"pose": pose.astype(np.float32), "reference": reference.astype(np.float32)}


@pytest.fixture(scope="module")
def base(small):
    """Latents of the base model's own run."""
    return Started(small).run(conditions())


@pytest.mark.parametrize("name", [*ANY_ENGINE, *MARKED])
def test_the_gentlest_settings_are_the_base_models_run(small, base, name):
    started = Started(small, name, ALL[name][0])
    found = started.run(conditions())
    # Both branches in one batch are not rounded as each alone.
    np.testing.assert_allclose(found, base, rtol=0, atol=1e-4 if name == "fastercache" else 0)
    assert sum(started.rows) == 2 * 2 * STEPS


@pytest.mark.parametrize("name", [*ANY_ENGINE, *MARKED])
def test_others_evaluate_less_and_give_something_else(small, base, name):
    started = Started(small, name, ALL[name][1])
    found = started.run(conditions())
    assert 0 < sum(started.rows) < 2 * 2 * STEPS
    assert np.isfinite(found).all() and np.abs(found - base).max() > 1e-4


@pytest.mark.parametrize("name", [*ANY_ENGINE, *MARKED])
def test_a_request_leaves_nothing_for_the_next(small, name):
    started = Started(small, name, ALL[name][1])
    started.run(conditions(1), seed=5)
    second = started.run(conditions())
    np.testing.assert_array_equal(second, Started(small, name, ALL[name][1]).run(conditions()))


def predictions(started, scenes, branches=(True, False)):
    """What is predicted at every step for windows that do not blend; latents and constants by window."""
    indices, found = np.arange(16), {}
    denoise = started.open_denoiser(started.generator, started.engines, {}, indices)
    for step, (window, scene), conditional in product(range(STEPS), enumerate(scenes), branches):
        latents = np.random.default_rng(100 * scene + step).standard_normal((1, 16, 16, 6, 4))
        latents, constants = (scene * latents).astype(np.float32), conditions(scene, 16)
        branch = WindowBranch(window, indices, conditional)
        found[step, window, conditional] = denoise.evaluate(branch, latents, step, constants)
    return found


@pytest.mark.parametrize("name", ["uniform-skip", "guidance-interval", "teacache", *MARKED])
def test_windows_and_branches_share_nothing(small, name):
    started = Started(small, name, ALL[name][1])
    both, other = predictions(started, (1, 3)), predictions(started, (2, 3))
    alone = predictions(started, (1,))
    for step, conditional in product(range(STEPS), (True, False)):
        np.testing.assert_array_equal(both[step, 1, conditional], other[step, 1, conditional])
        np.testing.assert_array_equal(both[step, 0, conditional], alone[step, 0, conditional])
    if name != "fastercache":  # which foretells one branch by the other, from a batch of both
        conditional = predictions(started, (1,), branches=(True,))
        for step in range(STEPS):
            np.testing.assert_array_equal(conditional[step, 0, True], both[step, 0, True])


@pytest.mark.parametrize("name", ["uniform-skip", "teacache", "first-block-cache", "pyramid-attention"])
def test_windows_are_known_by_number_and_not_by_the_order_of_calls(small, name):
    started = Started(small, name, ALL[name][1])
    indices = np.arange(16)

    def predicted(order):
        denoise = started.open_denoiser(started.generator, started.engines, {}, indices)
        found = {}
        for step in range(STEPS):
            for window, conditional in order:
                latents = np.random.default_rng(10 * step + window).standard_normal((1, 16, 16, 6, 4))
                branch = WindowBranch(window, indices, conditional)
                found[step, window, conditional] = denoise.evaluate(
                    branch, latents.astype(np.float32), step, conditions(window, 16))
        return found

    order = list(product((0, 1), (True, False)))
    there, back = predicted(order), predicted(order[::-1])
    for key, prediction in there.items():
        np.testing.assert_array_equal(prediction, back[key])


def test_engines_of_another_start_are_refused(small):
    recipe = recipe_of("first-block-cache")
    engines = Started(small).engines
    with pytest.raises(EngineError, match="needs the torch engine, started with it"):
        recipe.open_denoiser(recipe.adapt(small), engines, {}, np.arange(16))
