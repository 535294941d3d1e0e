"""The Wan families' own loops beside numbers recorded from upstream's code, on made-up networks.

The networks are a few lines each, so that no weights and no version of a library stand between: means of
blocks of pixels, mixed, for the autoencoder and the pose networks, and sines for the denoiser. Upstream's
loops ran in float32 (bfloat16 replaced by it), with the same networks in place of theirs.
"""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.frame_metrics import psnr
from engines.backends.torch_backend import TorchEngine
from generators.contract import GeneratorError, load_generator
from generators.samplers import bfloat16
from generators.wan.fun_control import FunControl, FunControlSettings
from pipeline.sampler import generate
from tests.wan_checkpoints import write_checkpoint, write_settings

HERE = Path(__file__).parent / "recorded"
MIX = np.cos(np.arange(48, dtype=np.float32).reshape(16, 3) * 1.7) / 3  # of pixels to latents, and back
POSE = np.sin(np.arange(48, dtype=np.float32).reshape(16, 3))
STILL = np.cos(np.arange(60, dtype=np.float32).reshape(20, 3)) * 0.2
EXACT = 85  # dB


def blocks(frames):
    """Skeletons (F, 48, 32, 3) of coloured blocks, as they were when upstream's loops ran."""
    random = np.random.default_rng(3)
    return random.integers(0, 256, (frames + 1, 6, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)[1:]


def pooled(frames, side):
    """Means of squares of pixels: (n, H, W, 3) to (3, n, H / side, W / side)."""
    n, h, w, _ = frames.shape
    return frames.reshape(n, h // side, side, w // side, side, 3).mean((2, 4)).transpose(3, 0, 1, 2)


def encode(pixels, keep, **_):
    keep = keep[:, None, None, None]
    levels = np.minimum(pixels + 0.5 * np.maximum(keep - 1, 0), 255)
    mean = pooled((levels / 127.5 - 1) * np.minimum(keep, 1), 8).mean(1, keepdims=True)
    return {"latents": np.einsum("oc,cthw->othw", MIX, mean)[None].astype(np.float32), "next_0": mean}


def decode(frames):
    def run(latents, **_):
        plain = np.einsum("oc,othw->cthw", MIX, latents[0]).repeat(8, 2).repeat(8, 3)
        shown = np.concatenate([plain - 0.03 * number for number in range(frames)], 1)
        levels = (np.tanh(shown).astype(np.float32) + 1) * np.float32(127.5)
        return {"pixels": levels.astype(np.uint8).transpose(1, 2, 3, 0), "next_0": latents}
    return run


def tile(frames):
    """As decode, but not squashed, and after what the frame before it in this tile was in the mean."""
    def run(latents, cache_0=None):
        before = 0 if cache_0 is None else cache_0.mean((3, 4), keepdims=True)
        plain = np.einsum("oc,othw->cthw", MIX, (latents + before)[0]).repeat(8, 2).repeat(8, 3)
        values = np.concatenate([plain - 0.03 * number for number in range(frames)], 1)
        return {"values": values.transpose(1, 2, 3, 0).astype(np.float32), "next_0": latents}
    return run


def image_kv(levels):
    return {"image_keys": np.square(levels / 127.5 - 1).mean(), "image_values": np.zeros(1)}


def flow(x, time, given, picture, extra):
    """Of latents, what is known (20, f, h, w), the picture's number, and what time and pose add."""
    made = np.sin(x[0]) * 0.7 + 0.5 * x[0] - given[4:] - 0.3 * given[:4].mean(0)
    return {"flow": (made + extra + 0.05 * picture)[None].astype(np.float32)}


ENGINES = {"encode_first": encode, "encode_next": encode, "decode_first": decode(1), "decode_next": decode(4),
           "image_kv": image_kv}


def animate(latents, time, pose, begin, image_keys, **_):
    posed = np.concatenate([np.zeros_like(pose[0, :, :1]), pose[0]], 1)
    return flow(latents, time, begin[0], image_keys, 0.2 * int(round(time[0] * 1000)) / 1000 - posed)


def pose_tokens(pixels):
    x = np.pad(pooled(pixels / 255, 16), ((0, 0), (3, 3), (0, 0), (0, 0)))
    x = sum(x[:, tap : tap + len(pixels)] * (0.1 + 0.05 * tap) for tap in range(7))
    x = x.reshape(3, -1, 4, *x.shape[2:]).mean(2)
    return {"features": np.einsum("oc,cthw->othw", POSE, x)[None].astype(np.float32)}


def still_pose(pixels):
    return {"features": np.einsum("oc,cthw->othw", STILL, pooled(pixels / 255, 8))[None].astype(np.float32)}


def unianimate(latents, time, pose, first, image_keys, branch, **_):
    extra = 0.4 * time[0] + 0.1 * (2 * branch[0] - 1) - branch[0] * pose[0].repeat(2, 2).repeat(2, 3)
    return flow(latents, time, first[0], image_keys, extra)


def made(generator, engines, frames, picture):
    """Our video, a pixel of each block."""
    columns = {"original": picture[None]}
    fitted = generator.fit(picture[None])[0]
    return generate(generator, engines, blocks(frames), fitted, 5, columns=columns)[:, ::8, ::8]


@pytest.mark.parametrize(("frames", "keep"), [(9, 1), (17, 1), (30, 1), (40, 5)])
def test_animates_loop_shows_what_wan22s_own_shows(tmp_path, frames, keep):
    """Recorded from WanAnimate.generate of Wan2.2, 42bf4cf; its frames as levels as save_video makes them.

    generate(clip_len=17, refert_num=keep, shift=5.0, sample_solver="unipc", sampling_steps=4, guide_scale=1,
    seed=5), the picture of another shape than the video. In float32, it takes frames over unrounded.
    """
    theirs = np.load(HERE / "wan_animate.npz")
    folder = write_checkpoint(tmp_path, "wan-animate", steps=4, keep=keep)
    generator = load_generator(f"wan-animate={folder}")
    found = made(generator, {**ENGINES, "denoise": animate}, frames, theirs["picture"])
    np.testing.assert_array_equal(generator.fit(theirs["picture"][None])[0], theirs["reference"])
    error = found - theirs[f"frames_{frames}_{keep}"].astype(np.float64)
    assert psnr(error) >= EXACT


def unianimate_of(folder, monkeypatch, frames, **settings):
    """A tiny UniAnimate, its engines, and the noise of upstream's run, which draws some without a seed."""
    theirs = np.load(HERE / "unianimate.npz")
    write_checkpoint(folder, "wan-unianimate", steps=4, overlap=3, **settings)
    generator = load_generator(f"wan-unianimate={folder}")
    if f"private_{frames}" in theirs:
        first, *later = np.split(theirs[f"private_{frames}"], len(theirs[f"private_{frames}"][0, 0]) // 2, 2)
        own = generator.noise(generator.windows.latent_frames(frames), 5)
        drawn = np.concatenate([first, own[:, :, 2:], *later], 2)
        monkeypatch.setattr(generator, "noise", lambda count, seed: drawn)
    engines = {**ENGINES, "denoise": unianimate, "pose": pose_tokens, "reference_pose": still_pose}
    return generator, engines, theirs


@pytest.mark.parametrize("frames", [1, 6, 17, 29, 41])
def test_unianimates_loop_shows_what_its_own_pipelines_show(tmp_path, monkeypatch, frames):
    """Recorded from UniAnimate-DiT, 884ac92: its pipeline up to 17 frames, then its long one, untiled.

    pipe(num_inference_steps=4, cfg_scale=1.5, seed=5, tiled=False), context_size=5 and context_overlap=3; a
    shorter clip filled with its last skeleton as its script does. Noise of the windows' first two
    frames, which the long one draws without a seed, was recorded too.
    """
    generator, engines, theirs = unianimate_of(tmp_path, monkeypatch, frames)
    wanted = theirs[f"float32_{frames}"].astype(np.float64)
    error = made(generator, engines, frames, theirs["picture"]) - wanted
    assert np.abs(error).max() <= 1 and np.count_nonzero(error) <= 1  # where a level is cut by a hair


@pytest.mark.parametrize("cut", [1, 2])
def test_unianimates_frames_are_decoded_in_its_own_tiles(tmp_path, cut):
    """Recorded from UniAnimate-DiT, 884ac92: WanVideoVAE.decode(tiled=True), tensor2video; each third pixel.

    tile_size=(6, 8), tile_stride=(3, 4), `tile` in place of its network. cut: pieces that latents come in.
    """
    folder = write_checkpoint(tmp_path, "wan-unianimate", width=80, height=112, tile_height=6, tile_width=8)
    generator = load_generator(f"wan-unianimate={folder}")
    latents = np.random.default_rng(7).standard_normal((1, 16, 2, 14, 10)).astype(np.float32) * 0.4
    shapes = set()

    def seen(engine):
        def run(latents, **caches):
            shapes.add(latents.shape[3:])
            return engine(latents, **caches)
        return run

    engines = {"decode_first": seen(tile(1)), "decode_next": seen(tile(4))}
    frames = np.concatenate([*generator.decode_pieces(engines, np.split(latents, cut, 2))])
    error = frames[:, ::3, ::3] - np.load(HERE / "unianimate_tiles.npz")["frames"].astype(int)
    assert frames.shape == (5, 112, 80, 3) and frames.dtype == np.uint8
    assert np.abs(error).max() <= 1 and np.count_nonzero(error) <= 5  # of 15,390, cut by a hair
    assert shapes == {(6, 8), (6, 6), (5, 8), (5, 6)}  # the last row and column are cut at the border


def test_where_no_other_tile_reaches_the_pixels_are_those_of_a_picture_of_its_size(tmp_path):
    """On engines, which check that caches of each shape fit their tile."""
    folder, latents = tmp_path, np.random.default_rng(7).standard_normal((1, 16, 3, 14, 10), np.float32)
    write_checkpoint(folder, "wan-unianimate", width=80, height=112, tile_height=6, tile_width=8)
    tiled = decoded_by(folder, latents)
    write_settings(folder, width=64, height=48)
    corner = decoded_by(folder, latents[..., :6, :8])
    assert tiled.shape == (9, 112, 80, 3) and corner.std() > 5
    assert np.abs(tiled[:, :24, :32].astype(int) - corner[:, :24, :32]).max() <= 1


def decoded_by(folder, latents):
    generator = load_generator(f"wan-unianimate={folder}")
    engines = {name: TorchEngine(generator.components[name], generator.build(name))
               for name in ("decode_first", "decode_next")}
    return np.concatenate([*generator.decode(engines, latents)])


@pytest.mark.parametrize("side", [-2, 3])
def test_a_tile_of_odd_or_negative_size_is_refused(tmp_path, side):
    folder = write_checkpoint(tmp_path, "wan-unianimate", tile_width=side)
    with pytest.raises(GeneratorError, match="tile_width: must be an even number of latents, or 0, is"):
        load_generator(f"wan-unianimate={folder}")


def test_published_tiles_are_unianimates_default_and_may_be_switched_off(tmp_path):
    size = {"width": 480, "height": 832}
    written = write_checkpoint(tmp_path, "wan-unianimate", **size)
    tiles = load_generator(f"wan-unianimate={written}").components["decode_next"].ranges
    assert {name: (each.min, each.max) for name, each in tiles.items()} == {"h": (29, 30), "w": (34, 52)}
    write_settings(tmp_path, **size, tile_height=0, tile_width=0)
    whole = load_generator(f"wan-unianimate={written}").components["decode_next"]
    assert whole.ranges == {} and whole.inputs[0].dims == (1, 16, 1, 104, 60)


def test_unianimates_times_and_latents_are_rounded_as_its_pipeline_rounds_them(tmp_path):
    """Recorded from UniAnimate-DiT, 884ac92: FlowMatchScheduler, 50 steps and shift 5, on bfloat16 tensors.

    As its pipeline calls it: timesteps to bfloat16 for the network, torch.manual_seed(0),
    x = torch.randn(1, 4, 3, 2, 2) to bfloat16, at each step the flow sin(3 x) + x t / 1000 to bfloat16.
    """
    theirs = np.load(HERE / "unianimate_state.npz")
    folder = write_checkpoint(tmp_path, "wan-unianimate", steps=50, half=True)
    grid = load_generator(f"wan-unianimate={folder}").scheduler
    np.testing.assert_array_equal((grid.times[:-1] * 1000).round(), theirs["times"].round())
    x = bfloat16(theirs["noise"])
    for step in range(50):
        x = grid.leap(x, bfloat16(np.sin(3 * x) + x * grid.times[step]), step, step + 1)
    apart = np.abs(x - theirs["latents"])
    assert np.median(apart) == 0 and apart.max() <= 2**-7 * np.abs(theirs["latents"]).max()


def test_funs_latents_are_rounded_as_diffusers_rounds_them(tmp_path):
    """VideoX-Fun, 804a425, keeps latents in bfloat16, and its script's sampler "Flow" is diffusers' Euler.

    torch multiplies bfloat16 by a number in its own way on each device: to a unit of the last place.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = write_checkpoint(tmp_path, "wan-fun-control", steps=50, half=True)
    grid = load_generator(f"wan-fun-control={folder}").scheduler
    theirs = FlowMatchEulerDiscreteScheduler(shift=5)
    theirs.set_timesteps(50)
    x = bfloat16(np.random.default_rng(0).standard_normal((1, 4, 3, 2, 2)).astype(np.float32))
    y = torch.from_numpy(x).bfloat16()
    for step, t in enumerate(theirs.timesteps):
        np.testing.assert_allclose(grid.times[step], theirs.sigmas[step], rtol=0, atol=1e-7)
        flow = bfloat16(np.sin(3 * x))
        y = theirs.step(torch.from_numpy(flow).bfloat16(), t, y, return_dict=False)[0]
        found = grid.leap(x, flow, step, step + 1)
        np.testing.assert_allclose(found, y.float(), rtol=2**-7, atol=2**-9)
        assert np.median(np.abs(found - y.float().numpy())) == 0
        x = y.float().numpy()


@pytest.mark.parametrize(("fps", "kept"), [(12, 12), (24, 24), (30, 30), (48, 16), (60, 20)])
def test_where_asked_for_fun_leaves_frames_out_as_its_script_does(fps, kept):
    """VideoX-Fun, 804a425, get_video_to_video_latent(fps=16): frame_skip = int(original_fps // fps).

    Its script ends with an error where that is 0.
    """
    of = SimpleNamespace(settings=FunControlSettings(fps=16))
    assert FunControl.output_fps(of, Fraction(fps)) == kept
    assert FunControl.output_fps(SimpleNamespace(settings=FunControlSettings()), Fraction(fps)) == fps
