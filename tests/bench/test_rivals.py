"""Rivals at tiny size: gentle ones change nothing, others evaluate less, and none mixes up what it keeps."""

import importlib
import importlib.util
from itertools import product

import numpy as np
import pytest

from bench.baselines.calibration import Calibration
from bench.baselines.hooked import find_transformer
from bench.baselines.rival import load_rival
from engines.backends.torch_backend import TorchEngine
from generators.presenter.generator import Presenter
from generators.samplers import FlowMatchEuler
from pipeline.sampler import Sampler

STEPS, FRAMES = 8, 20  # two windows
HAS_CACHE_DIT = importlib.util.find_spec("cache_dit") is not None
NO_CACHE_DIT = pytest.mark.skipif(not HAS_CACHE_DIT, reason="bench/baselines/requirements.txt is missing")
# Settings that change nothing, and some that keep something.
ANY_ENGINE = {
    "fewer-steps": ({}, {"steps": 4}),
    "uniform-skip": ({}, {"every": 3}),
    "guidance-interval": ({}, {"from_above": 0.2, "from_below": 0.3}),
    "teacache": ({}, {"threshold": 0.6}),
}
INSIDE = {
    "first-block-cache": ({}, {"threshold": 0.5}),
    "magcache": ({}, {"threshold": 2.0}),
    "seacache": ({}, {"threshold": 2.0}),
    "taylorseer": ({}, {"interval": 3}),
    "pyramid-attention": ({}, {"every": 3, "until": 1001}),
    "fastercache": ({}, {"every": 3, "until": 1001}),
    "cache-dit": ({}, {"warmup": 1, "threshold": 1.0}),
}
MARKED = [pytest.param(name, marks=NO_CACHE_DIT if name == "cache-dit" else ()) for name in INSIDE]
ALL = {**ANY_ENGINE, **INSIDE}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small gain nothing from more, and on a busy machine they would wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Small(Presenter):
    """The presenter's own classes with three random blocks, for 32x48 pixels."""

    name, size, scheduler = "small", (32, 48), FlowMatchEuler(STEPS, 3.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    import torch

    from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE, save_weights
    from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize

    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(1)
    save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
    save_weights(Denoise(DenoiserSize(1, 24, 3, 32)), folder / DENOISER_FILE)
    return Small(folder)


CALIBRATION = Calibration(tuple([0.3] * (STEPS - 1)), tuple([1.0] + [0.9] * (STEPS - 1)))


class Started:
    """A rival's generator with a torch engine of its own; rows: of each evaluation of the middle block."""

    def __init__(self, small, name=None, settings=(), generator=None):
        self.generator = generator or small
        if name:
            self.generator = load_rival(name).apply(small, dict(settings), CALIBRATION)
        module = self.generator.build("denoise")
        self.rows = []
        query = find_transformer(module).blocks[1].attn1.to_q
        query.register_forward_hook(lambda _, inputs, output: self.rows.append(len(output)))
        self.engine = TorchEngine(small.components["denoise"], module)

    def run(self, constants, seed=1, frames=FRAMES):
        sampler = Sampler(self.generator, {"denoise": self.engine})
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
    rival = Started(small, name, ALL[name][0])
    found = rival.run(conditions())
    # Both branches in one batch are not rounded as each alone.
    np.testing.assert_allclose(found, base, rtol=0, atol=1e-4 if name == "fastercache" else 0)
    assert sum(rival.rows) == 2 * 2 * STEPS


@pytest.mark.parametrize("name", [*ANY_ENGINE, *MARKED])
def test_others_evaluate_less_and_give_something_else(small, base, name):
    rival = Started(small, name, ALL[name][1])
    found = rival.run(conditions())
    assert 0 < sum(rival.rows) < 2 * 2 * STEPS
    assert np.isfinite(found).all() and np.abs(found - base).max() > 1e-4


@pytest.mark.parametrize("name", [*ANY_ENGINE, *MARKED])
def test_a_request_leaves_nothing_for_the_next(small, name):
    rival = Started(small, name, ALL[name][1])
    rival.run(conditions(1), seed=5)
    second = rival.run(conditions())
    np.testing.assert_array_equal(second, Started(small, name, ALL[name][1]).run(conditions()))


def predictions(rival, scenes, branches=(True, False)):
    """What a rival predicts at every step for windows that do not blend; latents and constants by window."""
    rival.generator.noise(16, 1)
    found = {}
    for step, (window, scene), conditional in product(range(STEPS), enumerate(scenes), branches):
        latents = np.random.default_rng(100 * scene + step).standard_normal((1, 16, 16, 6, 4))
        constants = conditions(scene, 16)
        found[step, window, conditional] = rival.generator.denoise(
            rival.engine, (scene * latents).astype(np.float32), step, constants, conditional)
    return found


@pytest.mark.parametrize("name", ["uniform-skip", "guidance-interval", "teacache", *MARKED])
def test_windows_and_branches_share_nothing(small, name):
    rival = Started(small, name, ALL[name][1])
    both, other = predictions(rival, (1, 3)), predictions(rival, (2, 3))
    alone = predictions(rival, (1,))
    for step, conditional in product(range(STEPS), (True, False)):
        np.testing.assert_array_equal(both[step, 1, conditional], other[step, 1, conditional])
        np.testing.assert_array_equal(both[step, 0, conditional], alone[step, 0, conditional])
    if name != "fastercache":  # which foretells one branch by the other, from a batch of both
        conditional = predictions(rival, (1,), branches=(True,))
        for step in range(STEPS):
            np.testing.assert_array_equal(conditional[step, 0, True], both[step, 0, True])
