"""A small generator for the tests of techniques, and settings of each: gentle ones and strong ones."""

import importlib.util

import numpy as np
import pytest

from generators.presenter.generator import Presenter
from generators.samplers import FlowMatchEuler
from pipeline.caches.calibration import Calibration
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import Recipe

STEPS, FRAMES = 8, 20  # two windows
HAS_CACHE_DIT = importlib.util.find_spec("cache_dit") is not None
NO_CACHE_DIT = pytest.mark.skipif(not HAS_CACHE_DIT, reason="pipeline/caches/requirements.txt is missing")
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


class Small(Presenter):
    """The presenter's own classes with three random blocks, for 32x48 pixels."""

    name, size, scheduler = "small", (32, 48), FlowMatchEuler(STEPS, 3.0)


def make_small(folder):
    """A small generator whose random weights lie in folder."""
    import torch

    from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE, save_weights
    from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize

    torch.manual_seed(1)
    save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
    save_weights(Denoise(DenoiserSize(1, 24, 3, 32)), folder / DENOISER_FILE)
    return Small(folder)


CALIBRATION = Calibration(
    tuple([0.3] * (STEPS - 1)), tuple([1.0] + [0.9] * (STEPS - 1)), tuple(np.linspace(0.1, 0.5, STEPS - 1)))


def recipe_of(name, settings=(), backend="torch"):
    return Recipe("cached", backend, technique=TechniqueChoice(name, dict(settings)))
