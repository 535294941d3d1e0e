"""The sampling loop: the same bytes for the same request, guidance, windows and their conditions."""

import numpy as np
import pytest

from generators.windows import OverlapWindows
from pipeline.sampler import Sampler, evaluations

LENGTHS = [1, 7, 16, 17, 40, 200]


def conditions(frames):
    """A pose that holds each frame's number, and a reference that is no frame."""
    places = np.arange(frames, dtype=np.float32)[None, :, None, None]
    return {"pose": np.tile(places, (1, 1, 12, 8)), "reference": np.ones((1, 2, 12, 8), np.float32)}


def run(generator, frames, seed=1, **options):
    denoise = generator.engines()["denoise"]
    sampler = Sampler(generator, {"denoise": denoise}, **options)
    return sampler.sample(conditions(frames), frames, seed).latents


def presenter_request(tiny, tiny_engines, frames, seed):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (frames + 1, 48, 32, 3), np.uint8)
    chunks = (pixels[1:][i:i + tiny.chunk] for i in range(0, frames, tiny.chunk))
    constants = tiny.condition(tiny_engines, chunks, pixels[:1])
    return Sampler(tiny, tiny_engines).sample(constants, frames, seed).latents


@pytest.mark.parametrize("frames", LENGTHS)
def test_a_clip_of_any_length_gives_that_many_latent_frames(tiny, tiny_engines, frames):
    latents = presenter_request(tiny, tiny_engines, frames, 1)
    assert latents.shape == (1, 16, frames, 6, 4) and latents.dtype == np.float32
    assert np.isfinite(latents).all()
    assert sum(len(pixels) for pixels in tiny.decode(tiny_engines, latents)) == frames


def test_the_same_request_gives_identical_bytes_and_another_seed_does_not(tiny, tiny_engines):
    first, again, other = (presenter_request(tiny, tiny_engines, 20, seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).mean() > 0.5


@pytest.mark.parametrize("frames", LENGTHS)
def test_ticks_are_as_many_as_evaluations(plain, frames):
    generator, ticks = plain(), []
    run(generator, frames, tick=lambda: ticks.append(1))
    windows = {1: 1, 7: 1, 16: 1, 17: 2, 40: 3, 200: 17}[frames]
    assert len(ticks) == evaluations(generator, frames) == 3 * windows
    assert len(generator.calls) == 2 * len(ticks)  # two branches each


def test_guidance_one_never_evaluates_the_unconditional_branch(plain):
    generator = plain(guidance=1.0)
    run(generator, 40)
    assert len(generator.calls) == evaluations(generator, 40) == 9
    assert all(call.conditional for call in generator.calls)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 2.0, 7.0])
def test_guidance_is_unconditional_plus_scale_times_the_difference(plain, guidance):
    generator = plain(guidance=guidance)
    generator.flow = lambda conditional, latents, pose: 3.0 if conditional else 1.0
    result = run(generator, 20)
    flow = 1.0 + guidance * (3.0 - 1.0)
    np.testing.assert_allclose(result, generator.noise(20, 1) - flow, rtol=0, atol=1e-5)  # times sum to -1


@pytest.mark.parametrize("frames", [16, 17, 50])
def test_the_true_flow_leads_to_the_clean_latents(plain, frames):
    generator = plain(guidance=1.0)
    clean = np.random.default_rng(7).standard_normal((1, frames, 12, 8)).astype(np.float32)
    constants = {"pose": clean, "reference": clean[:, :1]}

    def flow(conditional, latents, pose):  # latents = clean + t * (noise - clean), pose is the clean window
        t = generator.scheduler.times[generator.calls[-1].step]
        return (latents - pose) / t

    generator.flow = flow
    result = Sampler(generator, generator.engines()).sample(constants, frames, 3).latents
    np.testing.assert_allclose(result, clean, rtol=0, atol=1e-5)


def test_each_window_sees_its_own_part_of_what_changes_and_all_of_what_does_not(plain):
    generator = plain(steps=2, guidance=1.0)
    run(generator, 40)
    seen = [call.constants["pose"][0, :, 0, 0].tolist() for call in generator.calls]
    assert seen == [list(range(start, start + 16)) for start in (0, 12, 24)] * 2
    assert [call.step for call in generator.calls] == [0, 0, 0, 1, 1, 1]
    assert all(call.constants["reference"].shape == (1, 2, 12, 8) for call in generator.calls)


def test_a_short_clip_is_filled_up_with_its_last_frame(plain):
    generator = plain(guidance=1.0)
    assert run(generator, 7).shape == (1, 7, 12, 8)
    assert generator.calls[0].constants["pose"][0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6] + [6] * 9


def test_windows_are_blended_before_the_step_is_taken(plain):
    """Two windows of 4 that share 2 frames and predict 0 and 3: weights 2/3 : 1/3, then 1/3 : 2/3."""
    generator = plain(steps=1, guidance=1.0)
    generator.windows = OverlapWindows(4, 2)
    generator.flow = lambda conditional, latents, pose: 0.0 if pose[0, 0, 0, 0] == 0 else 3.0
    moved = generator.noise(6, 1) - run(generator, 6)
    np.testing.assert_allclose(moved[0, :, 0, 0], [0, 0, 1, 2, 3, 3], rtol=0, atol=1e-5)


def test_latents_of_a_longer_clip_begin_like_those_of_a_shorter_one(tiny):
    np.testing.assert_array_equal(tiny.noise(40, 5)[:, :, :16], tiny.noise(16, 5))


def test_noise_is_standard_normal_and_known(tiny):
    noise = tiny.noise(100, 5)
    assert noise.dtype == np.float32 and noise.flags.c_contiguous
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02  # 38,400 numbers
    first = np.random.Generator(np.random.Philox(5)).standard_normal(16 * 6 * 4, np.float32)
    np.testing.assert_array_equal(noise[0, :, 0].ravel(), first)


def test_inputs_are_not_changed(plain):
    generator, constants = plain(), conditions(20)
    before = {name: array.copy() for name, array in constants.items()}
    Sampler(generator, generator.engines()).sample(constants, 20, 1)
    for name, array in constants.items():
        np.testing.assert_array_equal(array, before[name])
