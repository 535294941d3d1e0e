"""Training at tiny size: a run that was killed and resumed is the run that was not, and its weights load."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from generators.presenter.load import load_autoencoder, load_denoiser, save_weights
from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize, to_input
from lab.presenter import train
from lab.presenter.dataset import OverlapWindows, Pictures, hand_and_face_weights, stream
from lab.presenter.loss import Gains, denoiser_loss, measure_gains, weighted_error
from lab.presenter.render.clip import Clip

SMALL_AUTOENCODER, SMALL_DENOISER = AutoencoderSize(8, 8, 1, 1), DenoiserSize(1, 24, 1, 32)
EQUAL = Gains(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
PLAN = train.Plan(steps=4, rate=1e-2, warm_up=2, batch=2, save_every=2, compiled=False)


class Killed(Exception):
    """Stands for the end of the process."""


BATCHES, GAINS = {}, []


def batches(dataset, workers=1):
    """The dataset's batches, each rendered once: most of a run's time goes into drawing the same again."""
    for number in itertools.count(dataset.first):
        given = {**vars(dataset), "first": number}
        name = type(dataset), *given.values()
        if name not in BATCHES:
            BATCHES[name] = next(iter(type(dataset)(**given)))
        yield BATCHES[name]


def gains(autoencoder, pictures):
    """Those of the first autoencoder: the others are as small and as random."""
    if not GAINS:
        GAINS.append(measure_gains(autoencoder, pictures))
    return GAINS[0]


@pytest.fixture(autouse=True)
def rendered_here(monkeypatch):
    """Batches are rendered in this process, on one core: starting more takes longer than the few batches."""
    monkeypatch.setattr(train, "stream", batches)
    monkeypatch.setattr(train, "measure_gains", gains)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def die_after(count, monkeypatch):
    """The next run is killed after some batches."""
    def stream(dataset, workers=1):
        yield from itertools.islice(batches(dataset), count)
        raise Killed

    monkeypatch.setattr(train, "stream", stream)


def train_autoencoder(folder, plan=PLAN):
    return train.train_autoencoder(folder, plan, SMALL_AUTOENCODER)


def train_denoiser(folder, plan=PLAN):
    autoencoder = folder / "autoencoder.safetensors"
    if not autoencoder.exists():
        torch.manual_seed(0)
        save_weights(Autoencoder(SMALL_AUTOENCODER), autoencoder)
    return train.train_denoiser(folder, plan, autoencoder, size=SMALL_DENOISER)


def weights(path, load):
    return load(path).state_dict()


def log(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]


NETWORKS = pytest.mark.parametrize(("run", "load", "name"), [
    (train_autoencoder, load_autoencoder, "autoencoder"), (train_denoiser, load_denoiser, "denoiser")],
    ids=["autoencoder", "denoiser"])


@NETWORKS
def test_a_run_killed_after_a_checkpoint_and_resumed_ends_where_one_run_does(
        run, load, name, tmp_path, monkeypatch):
    whole = weights(run(tmp_path / "whole"), load)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_after(3, patch)  # a step beyond the checkpoint at 2, which is lost and done again
        run(tmp_path / "parts")
    assert not (tmp_path / "parts" / f"{name}.safetensors").exists()
    resumed = weights(run(tmp_path / "parts"), load)
    assert whole.keys() == resumed.keys()
    for key in whole:
        torch.testing.assert_close(resumed[key], whole[key], rtol=0, atol=1e-6)
    lines, expected = log(tmp_path / "parts", name), log(tmp_path / "whole", name)
    assert [line["step"] for line in lines] == [2, 4]
    losses, wanted = ([line["loss"] for line in part] for part in (lines, expected))
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert all(line["loss"] > 0 and line["seconds_per_step"] > 0 for line in lines)


@NETWORKS
def test_training_changes_the_weights_and_they_load_at_their_size(run, load, name, tmp_path):
    one = run(tmp_path, replace(PLAN, steps=1))
    before = weights(one, load)
    after = weights(run(tmp_path, replace(PLAN, steps=4)), load)
    assert one == tmp_path / f"{name}.safetensors"
    moved = [key for key in before if (before[key] - after[key]).abs().max() > 0]
    assert len(moved) > 0.8 * len(before)
    assert load(one).size == (SMALL_AUTOENCODER if name == "autoencoder" else SMALL_DENOISER)
    assert load(tmp_path / f"{name}.latest.safetensors").state_dict().keys() == after.keys()
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.tmp"))


@NETWORKS
def test_a_finished_run_started_again_only_writes_its_weights(run, load, name, tmp_path):
    plan = replace(PLAN, steps=2)
    first = weights(run(tmp_path, plan), load)
    again = weights(run(tmp_path, plan), load)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert [line["step"] for line in log(tmp_path, name)] == [2]


def test_latents_of_a_trained_autoencoder_have_unit_variance_per_channel(tmp_path):
    network = load_autoencoder(train_autoencoder(tmp_path, replace(PLAN, steps=2)))
    pictures = torch.cat([next(iter(Pictures(n))) for n in (50, 51)])
    with torch.inference_mode():
        latents = network.encode(to_input(pictures))
    assert latents.mean((0, 2, 3)).abs().max() < 0.5
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(16), rtol=0, atol=0.4)  # other pictures


def test_a_denoiser_can_begin_from_weights_whatever_its_size(tmp_path):
    torch.manual_seed(5)
    start = save_weights(Denoise(DenoiserSize(1, 36, 1, 32)), tmp_path / "start.safetensors")
    autoencoder = save_weights(Autoencoder(SMALL_AUTOENCODER), tmp_path / "autoencoder.safetensors")
    path = train.train_denoiser(tmp_path / "run", replace(PLAN, steps=1, rate=0.0), autoencoder, start)
    begun, trained = weights(start, load_denoiser), weights(path, load_denoiser)
    assert begun.keys() == trained.keys()
    assert all(torch.equal(begun[key], trained[key]) for key in begun)  # at rate 0 nothing moves


def test_a_denoiser_without_an_autoencoder_says_so(tmp_path):
    with pytest.raises(ValueError, match="no weights at .*autoencoder.safetensors; train them with"):
        train.train_denoiser(tmp_path, PLAN, tmp_path / "autoencoder.safetensors", size=SMALL_DENOISER)


# The rotary embedding for frames picked from a window


@pytest.fixture(scope="module")
def rope():
    """The stock rotary embedding of a transformer."""
    return WanTransformer3DModel(patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=24,
                                 in_channels=4, out_channels=4, text_dim=8, freq_dim=8, ffn_dim=8,
                                 num_layers=1, rope_max_seq_len=64).rope


@pytest.mark.parametrize("frames", [1, 2, 15])
def test_frames_from_the_start_get_the_stock_embedding(rope, frames):
    placed = train.PlacedRope(rope, replace(PLAN, frames=frames))
    placed.places.copy_(torch.arange(frames + 1))
    hidden = torch.zeros(1, 4, frames + 1, 12, 8)
    for mine, stock in zip(placed(hidden), rope(hidden), strict=True):
        torch.testing.assert_close(mine, stock, rtol=0, atol=0)


def test_picked_frames_get_the_embedding_of_their_places(rope):
    placed = train.PlacedRope(rope, replace(PLAN, frames=2))
    placed.places.copy_(torch.tensor([0, 5, 16]))
    whole = rope(torch.zeros(1, 4, 17, 12, 8))
    for mine, stock in zip(placed(torch.zeros(1, 4, 3, 12, 8)), whole, strict=True):
        tokens = stock.shape[1] // 17
        expected = [stock[:, place * tokens:(place + 1) * tokens] for place in (0, 5, 16)]
        torch.testing.assert_close(mine, torch.cat(expected, 1), rtol=0, atol=0)


# Data and loss


def test_item_n_of_the_data_is_the_same_wherever_a_run_begins():
    from_start = list(itertools.islice(iter(OverlapWindows(0, 2, 2, 16)), 3))[2]
    resumed = next(iter(OverlapWindows(2, 2, 2, 16)))
    for one, other in zip(from_start, resumed, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(list(itertools.islice(iter(Pictures(0)), 2))[1], next(iter(Pictures(1))))


def test_several_processes_render_the_same_batches_in_the_same_order():
    alone = itertools.islice(iter(OverlapWindows(5, batch=1, frames=1, window=2)), 4)
    together = itertools.islice(stream(OverlapWindows(5, batch=1, frames=1, window=2), workers=2), 4)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_of_windows_is_references_frames_skeletons_weights_and_places():
    references, frames, skeletons, weights, places = next(iter(OverlapWindows(0, 3, 2, 16)))
    assert references.shape == (3, 192, 128, 3) and references.dtype == torch.uint8
    assert frames.shape == skeletons.shape == (3, 2, 192, 128, 3)
    assert weights.shape == (3, 2, 24, 16) and places.shape == (2,)
    assert 0 <= places[0] < places[1] < 16


def test_hands_and_faces_weigh_more():
    clip, t = Clip(12), np.arange(0, 4, 0.25)
    weights, pose = hand_and_face_weights(clip, t), clip.pose(t)
    assert set(np.unique(weights)) == {1.0, 1.5, 3.0}
    for i in range(len(t)):
        for hand in pose.hands[i]:
            column, row = (hand.mean(0) * 16).astype(int)
            if 0 <= column < 16 and 0 <= row < 24:
                assert weights[i, row, column] == 3.0


def test_a_denoiser_that_knew_the_flow_would_have_no_loss():
    """The skeletons are the truth here, so that forward can compute the flow from noisy latents and pose."""
    autoencoder = Autoencoder(SMALL_AUTOENCODER)
    network = Denoise(SMALL_DENOISER)
    network.transformer.rope = train.PlacedRope(network.transformer.rope, PLAN)
    batch = list(next(iter(OverlapWindows(0, 2, 2, 16))))
    batch[2] = batch[1]
    keeps = []

    def forward(noisy, times, pose, reference, keep):
        keeps.append(keep)
        return (noisy - pose) / times[:, None, None, None, None]

    for seed in range(40):
        torch.manual_seed(seed)
        loss = denoiser_loss(network, forward, autoencoder, EQUAL, batch)
        if keeps[-1].all():
            assert loss < 1e-4
    assert 0.8 < torch.cat(keeps).mean() < 1.0  # a tenth of 80 items goes without conditions
    assert network.transformer.rope.places.tolist() == [0, *(batch[4] + 1).tolist()]


def test_with_equal_gains_the_loss_is_the_weighted_mean_square():
    error, weights = torch.randn(2, 16, 3, 6, 5), torch.rand(2, 3, 1, 1).expand(2, 3, 6, 5)
    expected = (error.square().mean(1) * weights).sum() / weights.sum()
    torch.testing.assert_close(weighted_error(error, weights, EQUAL), expected)


def test_a_tint_costs_what_its_channel_gains_smooth_and_noise_what_it_gains_fine():
    gains = Gains(torch.full((16, 1, 1, 1), 2.0), torch.full((16, 1, 1, 1), 7.0))
    one = torch.ones(1, 8, 8)
    tint = torch.ones(1, 16, 1, 8, 8)
    checks = torch.tensor([1.0, -1.0]).repeat(4)
    assert weighted_error(tint, one[None], gains) == pytest.approx(7)
    assert weighted_error(tint * checks, one[None], gains) == pytest.approx(2)


def test_gains_are_what_errors_in_a_channel_do_to_pixels():
    """A decoder that shows one latent channel as colour: it gains everything, the others the least."""
    class Shows(torch.nn.Module):
        def encode(self, pictures):
            return torch.zeros(len(pictures), 16, 4, 4)

        def decode(self, latents):
            return torch.nn.functional.interpolate(latents[:, 5:6], scale_factor=8).expand(-1, 3, -1, -1)

    gains = measure_gains(Shows(), torch.zeros(6, 32, 32, 3, dtype=torch.uint8))
    for each in (gains.fine, gains.smooth):
        assert each.shape == (16, 1, 1, 1)
        assert each[5].item() == pytest.approx(16, rel=0.3)
        assert torch.equal(each[torch.arange(16) != 5], torch.full((15, 1, 1, 1), 0.2))


def test_the_input_of_the_autoencoder_is_minus_one_to_one_channels_first():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(10, 4, 6, 3)
    pictures = to_input(pixels)
    assert pictures.shape == (10, 3, 4, 6)
    torch.testing.assert_close(pictures[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
