"""MimicMotion: frames of a plain transcription of upstream's loop, in windows of every kind; other sizes."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import pipeline.sampler
from bench.frame_metrics import psnr
from engines.backends.torch_backend import TorchEngine
from engines.errors import EngineError
from generators.contract import GeneratorError, load_generator
from generators.mimicmotion.preprocess import cover, halved_levels
from generators.samplers import KarrasEuler
from generators.windows import ReferenceWindows
from tests.tiny_mimicmotion import clip, write_tiny
from tests.upstream_mimicmotion import Upstream, generate

SEED = 42


@pytest.fixture(scope="module")
def tiny_mimic(tmp_path_factory):
    """The tiny generator, a torch engine for each component, the transcription of the same folder."""
    folder = tmp_path_factory.mktemp("mimic")
    generator = write_tiny(folder)
    return generator, engines_of(generator), Upstream(folder)


def engines_of(generator):
    return {name: TorchEngine(spec, generator.build(name)) for name, spec in generator.components.items()}


def made(generator, engines, frames, **options):
    skeletons, image = clip(frames, **options)
    return pipeline.sampler.generate(generator, engines, skeletons, image, SEED)


@pytest.mark.parametrize(("frames", "what"), [(5, "one window"), (11, "three windows, the last moved back"),
                                              (9, "two windows that fit")])
def test_frames_are_upstream_s(tiny_mimic, frames, what):
    generator, engines, upstream = tiny_mimic
    assert len(generator.windows.window_indices(frames)) == {5: 1, 11: 3, 9: 2}[frames], what
    skeletons, image = clip(frames)
    found = pipeline.sampler.generate(generator, engines, skeletons, image, SEED)
    wanted = generate(upstream, skeletons, image, SEED)
    assert found.shape == wanted.shape == skeletons.shape and found.dtype == np.uint8
    apart = found.astype(np.int16) - wanted
    assert np.abs(apart).max() <= 1 and psnr(apart) >= 65  # measured 71 to 73: levels are cut, not rounded


def test_a_short_clip_is_upstream_s_with_its_last_skeleton_held(tiny_mimic):
    """Upstream itself stops with an error at fewer frames than its tile; this is what it would be given."""
    generator, engines, upstream = tiny_mimic
    skeletons, image = clip(3)
    held = np.concatenate([skeletons, skeletons[-1:], skeletons[-1:]])
    wanted = generate(upstream, held, image, SEED, shown=3)
    found = pipeline.sampler.generate(generator, engines, skeletons, image, SEED)
    apart = found.astype(np.int16) - wanted
    assert found.shape == (3, 64, 64, 3) and np.abs(apart).max() <= 1 and psnr(apart) >= 65


def test_where_asked_for_frames_are_left_out_and_colours_swapped_as_upstream_does(tiny_mimic, tmp_path):
    """Its get_video_pose takes every sample_stride * max(1, int(fps / 24)), its script's stride is 2."""
    folder = tiny_mimic[0].fingerprint_files[0].parent
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    text = (folder / "vivace.toml").read_text()
    (tmp_path / "vivace.toml").unlink()
    (tmp_path / "vivace.toml").write_text(f"{text}stride = 2\nswap_red_blue = true\n")
    changed, skeletons, seen = load_generator(f"mimicmotion={tmp_path}"), clip(3)[0], []
    assert [changed.output_fps(Fraction(fps)) for fps in (15, 24, 30, 48, 60)] == [7.5, 12, 15, 12, 15]
    assert tiny_mimic[0].output_fps(Fraction(30)) == 30

    def noted(pixels):
        seen.append(pixels)
        return tiny_mimic[1]["pose"](pixels=pixels)

    for generator, shown in ((changed, skeletons), (tiny_mimic[0], skeletons[..., ::-1])):
        generator.condition({**tiny_mimic[1], "pose": noted}, [np.ascontiguousarray(shown)], clip(1)[1][None])
    np.testing.assert_array_equal(seen[0], seen[1])


def test_guidance_may_change_from_frame_to_frame(tmp_path):
    generator = write_tiny(tmp_path, first_guidance=1.0, last_guidance=3.0)
    skeletons, image = clip(9)
    found = pipeline.sampler.generate(generator, engines_of(generator), skeletons, image, SEED)
    upstream = Upstream(tmp_path)
    wanted = generate(upstream, skeletons, image, SEED, guidance=(1.0, 3.0))
    assert psnr(found.astype(np.int16) - wanted) >= 50
    even = generate(upstream, skeletons, image, SEED)
    assert psnr(even.astype(np.int16) - wanted) < 50


@pytest.mark.parametrize("changed", ["skeletons", "image", "seed"])
def test_every_input_shows_in_the_frames(tiny_mimic, changed):
    generator, engines, _ = tiny_mimic
    (skeletons, image), (others, another) = clip(5), clip(5, seed=1)
    base = pipeline.sampler.generate(generator, engines, skeletons, image, SEED)
    inputs = {"skeletons": (others, image, SEED), "image": (skeletons, another, SEED),
              "seed": (skeletons, image, 7)}[changed]
    assert psnr(pipeline.sampler.generate(generator, engines, *inputs).astype(np.int16) - base) < 50


def test_the_grid_is_the_scheduler_s_of_diffusers():
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)
    scheduler.set_timesteps(25)
    grid, half = KarrasEuler(25, half=False), KarrasEuler(25)
    np.testing.assert_array_equal(grid.sigmas, scheduler.sigmas.numpy())
    np.testing.assert_allclose(grid.times[:-1], scheduler.timesteps.numpy(), atol=1e-6)
    assert half.times[0] == np.float16(1.6378) and half.times[24] == np.float16(-1.5537)
    latents = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 700
    ours = latents.numpy()
    for step, time in enumerate(scheduler.timesteps):
        v = torch.randn(latents.shape, generator=torch.Generator().manual_seed(step))
        scaled = scheduler.scale_model_input(latents, time)
        np.testing.assert_allclose(grid.scaled(ours, step), scaled.numpy(), atol=1e-5)
        latents = scheduler.step(v, time, latents, return_dict=False)[0]
        ours = grid.leap(ours, v.numpy(), step, step + 1)
        np.testing.assert_allclose(ours, latents.numpy(), rtol=1e-5, atol=1e-5)
    assert grid.gains[-1] == 1 and (np.diff(grid.gains) > 0).all()


def test_twenty_levels_lose_one_in_half_precision_and_63_in_single():
    levels = np.arange(256)
    for half, lost in ((True, 20), (False, 63)):
        assert (levels - halved_levels(half)).tolist().count(1) == lost
        assert set(levels - halved_levels(half)) == {0, 1}


@pytest.mark.parametrize(("frames", "upstream_work", "even_work"), [
    (73, 1.97, 1.10), (100, 1.44, 1.06), (139, 1.55, 1.10), (265, 1.09, 1.07), (300, 1.20, 1.08)])
def test_windows_are_upstream_s_and_even_ones_cost_less(frames, upstream_work, even_work):
    """frames: latent ones, the reference among them; work: frames evaluated by those."""
    plain, even = ReferenceWindows(72, 6), ReferenceWindows(72, 6, even=True)
    for rule, work in ((plain, upstream_work), (even, even_work)):
        places = rule.window_indices(frames - 1)
        assert sum(map(len, places)) / frames == pytest.approx(work, abs=0.006)
        assert all(place[0] == 0 and len(place) <= 72 for place in places)
        assert set(np.concatenate(places)) == set(range(frames))
        assert len({len(place) for place in places}) == 1


def test_even_windows_of_a_clip_that_fits_are_upstream_s(tmp_path, tiny_mimic):
    generator, engines, _ = tiny_mimic
    even = write_tiny(tmp_path, even_windows=True)
    np.testing.assert_array_equal(made(even, engines_of(even), 9), made(generator, engines, 9))
    assert len(made(even, engines, 2)) == 2 and even.windows.window_indices(2)[0].tolist() == [0, 1, 2]


def test_even_windows_change_frames_far_less_than_another_seed_does(tmp_path):
    skeletons, image = clip(6)
    plain = write_tiny(tmp_path / "plain", steps=10)
    even = write_tiny(tmp_path / "even", steps=10, even_windows=True)
    assert [len(place) for place in plain.windows.window_indices(6)] == [6, 6]
    assert [len(place) for place in even.windows.window_indices(6)] == [5, 5]
    engines = engines_of(plain)  # the networks are the same
    base, other, seed = (
        pipeline.sampler.generate(generator, engines, skeletons, image, number).astype(np.int16)
        for generator, number in ((plain, SEED), (even, SEED), (plain, SEED + 1)))
    assert psnr(other - base) > psnr(seed - base) + 10  # measured 31.6 and 19


def test_pictures_of_other_sizes_are_filled_up_and_cut(tmp_path):
    size = 60, 100
    generator = write_tiny(tmp_path, width=60, height=100)
    frames = made(generator, engines_of(generator), 2, size=size)
    assert frames.shape == (2, size[1], size[0], 3) and frames.std() > 1
    assert generator.components["encode"].inputs[0].dims == (1, 128, 64, 3)


@pytest.mark.parametrize("had", [(50, 70), (300, 200), (64, 48), (33, 90)])
def test_pictures_are_brought_to_size_as_torch_does_without_a_filter(had):
    frames = np.random.default_rng(0).integers(0, 256, (1, *had, 3), np.uint8)
    ratio, (width, height) = had[0] / had[1], (48, 64)
    tall = ratio < height / width
    size = (height, math.ceil(height / ratio)) if tall else (math.ceil(width * ratio), width)
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(frames).permute(0, 3, 1, 2).float(), size=size, mode="bilinear")
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    wanted = scaled.round()[:, :, top:top + height, left:left + width].permute(0, 2, 3, 1).numpy()
    assert abs(cover(frames, width, height) - wanted).max() <= 1  # where .5 is rounded


def test_a_decoder_that_overflows_is_an_error_with_what_to_do(tiny_mimic):
    generator, engines, _ = tiny_mimic
    latents = np.zeros((1, 3, 4, 8, 8), np.float32)
    latents[0, 1] = np.nan
    with pytest.raises(EngineError, match="frames 0 to 2 are not finite.*decode=fp32"):
        list(generator.decode(engines, latents))


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda folder: (folder / "unet" / "config.json").unlink(), "config.json: No such file.*needs Stable"),
    (lambda folder: (folder / "unet" / "config.json").write_text("[]"), "holds no settings but list"),
    (lambda folder: (folder / "MimicMotion_1-1.pth").unlink(), "no checkpoint at .*MimicMotion_1-1.pth"),
    (lambda folder: (folder / "vivace.toml").write_text("tiles = 4"), "unknown setting 'tiles'.*'tile'"),
    (lambda folder: (folder / "vivace.toml").write_text("gpu = -1"), "gpu 0 or more"),
])
def test_a_folder_with_something_missing_is_an_error_that_names_it(tmp_path, damage, reason):
    write_tiny(tmp_path)
    damage(tmp_path)
    with pytest.raises(GeneratorError, match=reason):  # weights are asked for when they are needed
        load_generator(f"mimicmotion={tmp_path}").build("denoise")


def test_noise_of_a_gpu_is_drawn_behind_the_picture_s_and_repeats_with_the_window(tmp_path):
    generator = write_tiny(tmp_path, gpu=108)
    noise = generator.noise(8, SEED)
    np.testing.assert_array_equal(noise[:, 6:], noise[:, :2])
    assert noise.std() == pytest.approx(700, rel=0.05) and generator.noise(8, 1).flat[0] != noise.flat[0]
    assert (noise == noise.astype(np.float16)).all()
