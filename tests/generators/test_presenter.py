"""The presenter's networks and rules, at tiny size and with the bundled weights."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.frame_metrics import psnr
from engines.backends.torch_backend import TorchEngine
from generators.contract import GeneratorError
from generators.presenter.generator import Presenter
from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE, load_autoencoder, load_denoiser
from lab.presenter.evaluate import held_out


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def window(seed):
    """A window's latents, pose and reference for the tiny presenter."""
    windows = (noise(1, 16, 16, 6, 4, seed=seed + n) for n in range(2))
    return *windows, noise(1, 16, 6, 4, seed=seed + 2)


def test_the_unconditional_branch_ignores_pose_and_reference(tiny, tiny_engines):
    latents, pose, reference = window(0)
    _, other_pose, other_reference = window(10)

    def flow(conditional, pose, reference):
        constants = {"pose": pose, "reference": reference}
        return tiny.denoise(tiny_engines["denoise"], latents, 0, constants, conditional)

    np.testing.assert_array_equal(flow(False, pose, reference), flow(False, other_pose, other_reference))
    for changed in ((other_pose, reference), (pose, other_reference)):
        assert np.abs(flow(True, pose, reference) - flow(True, *changed)).max() > 1e-3
    assert np.abs(flow(True, pose, reference) - flow(False, pose, reference)).max() > 1e-3


def test_conditional_is_seen_beside_pose_and_reference(tiny_engines):
    """Black skeletons and a grey picture could have zero latents; the flag still tells the branches apart."""
    latents, pose, reference = window(0)

    def flow(conditional):
        return tiny_engines["denoise"](latents=latents, time=np.ones(1, np.float32), pose=0 * pose,
                                       reference=0 * reference, conditional=conditional)["flow"]

    assert np.abs(flow(np.zeros(1, np.float32)) - flow(np.ones(1, np.float32))).max() > 1e-4


def test_each_step_is_evaluated_at_its_time(tiny, tiny_engines):
    seen, (latents, pose, reference) = [], window(0)

    def engine(**arrays):
        seen.append(arrays["time"].item())
        return tiny_engines["denoise"](**arrays)

    for step in range(tiny.scheduler.steps):
        tiny.denoise(engine, latents, step, {"pose": pose, "reference": reference}, True)
    np.testing.assert_allclose(seen, [1.0, 0.75])


@pytest.mark.parametrize(("time", "share"), [(1.0, 1.0), (0.5, 0.0), (0.0, -1.0), (0.8, 0.6 / 0.68)])
def test_a_network_that_says_nothing_gives_the_best_linear_guess_of_the_flow(tiny, time, share):
    """Of clean = reference + r with r and noise of variance 1, where flow + reference = noise - r:
    cov(noise - r, (1 - t) r + t noise) / var((1 - t) r + t noise) = (2t - 1) / (t² + (1 - t)²).
    """
    network = tiny.build("denoise")
    torch.nn.init.zeros_(network.transformer.proj_out.weight)
    torch.nn.init.zeros_(network.transformer.proj_out.bias)
    latents, pose, reference = (torch.from_numpy(array) for array in window(0))
    flow = network(latents, torch.tensor([time]), pose, reference, torch.ones(1))
    still = reference[:, :, None]
    torch.testing.assert_close(flow, (latents - (1 - time) * still) * share - still)


def test_from_noise_a_network_that_says_nothing_samples_the_reference(tiny):
    network = tiny.build("denoise")
    torch.nn.init.zeros_(network.transformer.proj_out.weight)
    torch.nn.init.zeros_(network.transformer.proj_out.bias)
    latents, pose, reference = (torch.from_numpy(array) for array in window(0))
    clean = latents - network(latents, torch.ones(1), pose, reference, torch.ones(1))
    torch.testing.assert_close(clean, reference[:, :, None].expand_as(clean))


def test_two_branches_in_one_batch_are_the_two_alone(tiny_engines):
    latents, pose, reference = window(0)
    both = {"latents": latents, "time": np.full(1, 0.6, np.float32), "pose": pose, "reference": reference,
            "conditional": np.ones(1, np.float32)}
    without = {**both, "pose": 0 * pose, "reference": 0 * reference, "conditional": np.zeros(1, np.float32)}
    denoise = tiny_engines["denoise"]
    batch = denoise(**{name: np.concatenate([both[name], without[name]]) for name in both})["flow"]
    np.testing.assert_allclose(batch[:1], denoise(**both)["flow"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(batch[1:], denoise(**without)["flow"], rtol=0, atol=2e-5)


def test_encode_takes_8_bit_pixels_as_the_module_takes_minus_one_to_one(tiny, tiny_engines):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 32, 3), np.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    pictures = torch.from_numpy(pixels.astype(np.float32).transpose(0, 3, 1, 2)) / 127.5 - 1
    assert (pictures.min(), pictures.max()) == (-1, 1)
    with torch.inference_mode():
        latents = load_autoencoder(tiny.weights / AUTOENCODER_FILE).encode(pictures).numpy()
    np.testing.assert_allclose(tiny_engines["encode"](pixels=pixels)["latents"], latents, rtol=0, atol=1e-6)


def test_decode_gives_rounded_clamped_8_bit_pixels(tiny, tiny_engines):
    latents = 20 * noise(2, 16, 6, 4)
    with torch.inference_mode():
        network = load_autoencoder(tiny.weights / AUTOENCODER_FILE)
        pictures = network.decode(torch.from_numpy(latents)).numpy()
    expected = np.rint(((pictures + 1) * 127.5).clip(0, 255)).transpose(0, 2, 3, 1)
    pixels = tiny_engines["decode"](latents=latents)["pixels"]
    assert (pictures.min() < -1.0 or pictures.max() > 1.0) and pixels.dtype == np.uint8
    assert (pixels != expected).mean() < 0.001  # an exact half may go either way


def test_latents_have_unit_variance_by_the_networks_own_statistics(tiny):
    network = load_autoencoder(tiny.weights / AUTOENCODER_FILE)
    network.mean.fill_(0.5)
    network.std.fill_(2.0)
    pictures = torch.rand(1, 3, 48, 32) * 2 - 1
    with torch.inference_mode():
        raw = network.encoder(pictures)
        torch.testing.assert_close(network.encode(pictures), (raw - 0.5) / 2)
        torch.testing.assert_close(network.decode(network.encode(pictures)), network.decoder(raw))


@pytest.mark.parametrize("frames", [1, 8, 9, 17])
def test_condition_and_decode_work_in_chunks_of_eight(tiny, tiny_engines, frames):
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 48, 32, 3), np.uint8)
    chunks = [pixels[i:i + 8] for i in range(0, frames, 8)]
    constants = tiny.condition(tiny_engines, chunks, pixels[:1])
    assert constants["pose"].shape == (1, 16, frames, 6, 4) and constants["reference"].shape == (1, 16, 6, 4)
    np.testing.assert_allclose(constants["pose"][:, :, 0], constants["reference"], rtol=0, atol=1e-5)
    sizes = [len(part) for part in tiny.decode(tiny_engines, constants["pose"])]
    assert sizes == [len(chunk) for chunk in chunks]


@pytest.mark.parametrize("size", [(128, 192), (270, 480), (640, 360), (541, 961), (32, 48), (1, 1)])
def test_fit_brings_any_size_to_the_generators_without_squeezing(size):
    width, height = size
    column, row = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    picture = np.stack([column, row, 0 * row], -1).astype(np.uint8)[None]
    fitted = Presenter().fit(picture)
    assert fitted.shape == (1, 192, 128, 3) and fitted.dtype == np.uint8
    if width * height > 1:  # equal slopes: as many levels per pixel as in the source, scaled
        scale = max(128 / width, 192 / height)
        middle = fitted[0, 48:144, 32:96].astype(float)
        across, down = np.diff(middle[..., 0], axis=1).mean(), np.diff(middle[..., 1], axis=0).mean()
        np.testing.assert_allclose((across * scale, down * scale),
                                   (255 / (width - 1), 255 / (height - 1)), rtol=0.08)


def test_pixels_that_fit_are_not_resampled():
    picture = np.random.default_rng(0).integers(0, 256, (2, 192, 128, 3), np.uint8)
    np.testing.assert_array_equal(Presenter().fit(picture), picture)


def test_missing_weights_say_how_to_get_them(tmp_path):
    text = f"no weights at {tmp_path / DENOISER_FILE}; train them with: python -m lab.presenter train"
    with pytest.raises(GeneratorError, match=re.escape(text)):
        Presenter(tmp_path).build("denoise")


def test_weights_carry_their_networks_size(tiny):
    assert load_autoencoder(tiny.weights / AUTOENCODER_FILE).size.fine == 8
    assert load_denoiser(tiny.weights / DENOISER_FILE).size.head_dim == 24


def test_weights_of_another_network_are_refused_with_the_first_that_differs(tiny, tmp_path):
    tensors = load_file(tiny.weights / DENOISER_FILE)
    tensors["context"] = tensors["context"][..., :-1].contiguous()
    with_size = {"heads": "1", "head_dim": "24", "layers": "1", "ffn": "32"}
    save_file(tensors, tmp_path / DENOISER_FILE, with_size)
    text = f"{tmp_path / DENOISER_FILE} does not fit the network, of another version? size mismatch"
    with pytest.raises(GeneratorError, match=re.escape(text)):
        load_denoiser(tmp_path / DENOISER_FILE)


def test_weights_without_their_networks_size_are_refused(tiny, tmp_path):
    path = tmp_path / DENOISER_FILE
    save_file(load_file(tiny.weights / DENOISER_FILE), path)
    with pytest.raises(GeneratorError, match=r"denoiser.safetensors lacks its network's size"):
        load_denoiser(path)


# The bundled weights


@pytest.fixture(scope="module")
def presenter():
    return Presenter()


def test_the_bundled_autoencoder_gives_held_out_frames_back(presenter):
    item = held_out(0, 4)
    encode = TorchEngine(presenter.components["encode"], presenter.build("encode"))
    decode = TorchEngine(presenter.components["decode"], presenter.build("decode"))
    # Thin coloured lines lose most: skeletons come back at 28 dB, people at 32.
    for frames, least in ((item.truth, 30), (item.skeletons, 26), (item.reference[None], 30)):
        latents = encode(pixels=frames)["latents"]
        rebuilt = decode(latents=latents)["pixels"]
        assert psnr(rebuilt.astype(np.float32) - frames) > least
    assert 0.5 < encode(pixels=item.truth)["latents"].std() < 2  # unit variance over the training pictures


def test_the_bundled_denoiser_is_finite_and_knows_noise_from_clean(presenter):
    item = held_out(0, 16)
    encode = TorchEngine(presenter.components["encode"], presenter.build("encode"))
    denoise = TorchEngine(presenter.components["denoise"], presenter.build("denoise"))
    chunks = (item.skeletons[:8], item.skeletons[8:])
    constants = presenter.condition({"encode": encode}, chunks, item.reference[None])
    start = presenter.noise(16, 1)
    for conditional in (True, False):
        flow = presenter.denoise(denoise, start, 0, constants, conditional)
        assert flow.shape == start.shape and np.isfinite(flow).all()
        assert np.corrcoef(flow.ravel(), start.ravel())[0, 1] > 0.3  # it is noise minus clean
