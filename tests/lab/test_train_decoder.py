"""The decoder's last stage at tiny size: the encoder stays, a killed run goes on, sampling repeats itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from generators.presenter.load import load_autoencoder, load_denoiser, save_weights
from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize
from generators.samplers import FlowMatchEuler
from lab.presenter import train_decoder as module
from lab.presenter.render.clip import HEIGHT, WIDTH
from lab.presenter.train import Plan

PLAN = Plan(steps=3, rate=1e-2, warm_up=1, window=2, save_every=1, compiled=False)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two steps of sampling; batches are rendered in this process, on one core."""
    monkeypatch.setattr(module, "GRID", FlowMatchEuler(2, 3.0))
    monkeypatch.setattr(module, "stream", lambda dataset, workers=1: iter(dataset))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def networks(tmp_path):
    torch.manual_seed(0)
    return (save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), tmp_path / "autoencoder.safetensors"),
            save_weights(Denoise(DenoiserSize(1, 24, 1, 32)), tmp_path / "denoiser.safetensors"))


def test_only_the_decoder_changes(networks, tmp_path):
    before = load_autoencoder(networks[0]).state_dict()
    after = load_autoencoder(module.train_decoder(tmp_path / "run", PLAN, *networks, clips=2)).state_dict()
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"decoder"}
    clips = sorted((tmp_path / "run" / "clips").iterdir())
    assert [path.name for path in clips] == ["0000.npz", "0001.npz"]
    with np.load(clips[0]) as clip:
        latents, frames = clip["latents"], clip["frames"]
    assert latents.shape == (2, 16, HEIGHT // 8, WIDTH // 8) and np.isfinite(latents).all()
    assert frames.shape == (2, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8


def test_a_run_killed_while_sampling_and_while_training_ends_as_one_that_was_not(
        networks, tmp_path, monkeypatch):
    whole = load_autoencoder(module.train_decoder(tmp_path / "whole", PLAN, *networks, clips=2)).state_dict()
    sampled, calls = module.sampled, itertools.count()

    def killed_at_second(*arguments):
        if next(calls):
            raise KeyboardInterrupt
        return sampled(*arguments)

    monkeypatch.setattr(module, "sampled", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        module.train_decoder(tmp_path / "run", PLAN, *networks, clips=2)
    monkeypatch.setattr(module, "sampled", sampled)
    module.train_decoder(tmp_path / "run", replace(PLAN, steps=0), *networks, clips=2)
    monkeypatch.setattr(module, "stream", lambda dataset, workers=1: itertools.islice(iter(dataset), 1))
    with pytest.raises((StopIteration, RuntimeError)):
        module.train_decoder(tmp_path / "run", PLAN, *networks, clips=2)
    monkeypatch.setattr(module, "stream", lambda dataset, workers=1: iter(dataset))
    monkeypatch.setattr(module, "sampled", lambda *arguments: pytest.fail("a clip was sampled again"))
    resumed = load_autoencoder(module.train_decoder(tmp_path / "run", PLAN, *networks, clips=2)).state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_same_clip_is_sampled_alike_and_another_seed_is_not(networks):
    autoencoder, denoiser = load_autoencoder(networks[0]), load_denoiser(networks[1])
    clip, t = module.Clip(module.FIRST_SEED), np.array([0.5, 0.6])
    first, again, other = (module.sampled(autoencoder, denoiser, clip, t, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and (first - other).abs().mean() > 0.1
