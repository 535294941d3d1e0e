"""AnimateAnyone's kind: frames of upstream's own pipeline, and what else its generator promises.

Recorded in recorded/refnet.npz, see test_refnet_networks.py, on the same weights:
  Pose2VideoPipeline(...)(picture, skeletons, 64, 72, frames, 4, 3.5, generator=torch.manual_seed(42),
                          context_frames=8, context_overlap=2).videos
of Moore-AnimateAnyone a914ef3 in float32, as levels as save_videos_grid makes them, every fourth pixel of
every fourth row.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.backends.torch_backend import TorchEngine
from engines.errors import EngineError
from generators.contract import FULL, SHALLOW, load_generator
from generators.resize import stretch
from generators.uniform_windows import HeldWindows, UniformWindows
from pipeline.recipe import Recipe
from pipeline.sampler import generate
from pipeline.step_plan import StepPlan
from tests.tiny_refnet import apart, clip, engines_of, folder_of, with_settings, write_tiny

SEED = 42
THEIRS = np.load(Path(__file__).parent / "recorded" / "refnet.npz")


@pytest.fixture(scope="module")
def tiny_ref(tmp_path_factory):
    """The tiny generator, and a torch engine for each component."""
    generator = write_tiny(tmp_path_factory.mktemp("refnet"))
    return generator, engines_of(generator)


def made(generator, engines, frames, **changed):
    skeletons, picture = clip(frames)
    seen = {"skeletons": skeletons, "picture": picture, "seed": SEED, **changed}
    fitted = generator.fit(seen["skeletons"]), generator.fit(seen["picture"][None])[0]
    return generate(generator, engines, *fitted, seen["seed"], columns={"original": seen["picture"][None]})


@pytest.mark.parametrize(("frames", "windows"), [(1, 1), (5, 1), (8, 1), (20, 4)])
def test_frames_are_those_of_upstreams_own_pipeline(tiny_ref, frames, windows):
    generator, engines = tiny_ref
    places = generator.windows.window_indices(frames)
    assert len(places) == windows and len(places[0]) == min(frames, 8)
    wanted = THEIRS[f"frames_{frames}"].astype(int)
    difference = np.abs(made(generator, engines, frames)[:, ::4, ::4] - wanted)
    assert difference.max() <= 1 and difference.mean() < 0.01  # measured 0.005, where levels are truncated


def test_windows_are_upstreams_and_go_on_at_the_beginning():
    """Those of upstream's context.uniform(0, frames, 24, 1, 4): 64 frames need four, once and a half."""
    rule = UniformWindows(24, 4, filled=False)
    ends = {frames: [(at[0], at[-1]) for at in rule.window_indices(frames)] for frames in (48, 64)}
    assert ends == {48: [(0, 23), (20, 43), (40, 15)], 64: [(0, 23), (20, 43), (40, 63), (60, 19)]}
    assert [len(place) for place in rule.window_indices(24)] == [24]
    assert [len(place) for place in rule.window_indices(7)] == [7] and len(rule.condition_indices(7)) == 7


def test_musepose_s_windows_end_with_the_clip_whose_last_frame_is_held(tiny_ref):
    """Its test_stage_2.py adds skeletons until (L - S) % (S - O) is 0, and its windows are not closed."""
    rule = HeldWindows(48, 4)
    assert [(place[0], place[-1]) for place in rule.window_indices(150)] == [
        (0, 47), (44, 91), (88, 135), (132, 179)]
    assert rule.condition_indices(150)[148:].tolist() == [148] + [149] * 31 and rule.latent_frames(150) == 150
    assert [len(HeldWindows(48, 4).window_indices(frames)[0]) for frames in (48, 10, 2)] == [48, 48, 4]
    generator, engines = tiny_ref
    held = with_settings(folder_of(generator), around=False)
    assert [place[-1] for place in held.windows.window_indices(10)] == [7, 13]
    assert made(held, engines, 10).shape == (10, 72, 64, 3)
    with_settings(folder_of(generator))


def test_engines_of_fixed_shapes_can_be_given_the_whole_bank_hidden(tiny_ref):
    generator, engines = tiny_ref
    whole = with_settings(folder_of(generator), short_bank=False)
    ranges = [set(each.components["denoise"].ranges) for each in (generator, whole)]
    assert ranges == [{"f", "t0", "t1", "t2", "t3"}, {"f"}]
    difference = np.abs(made(whole, engines, 2).astype(int) - made(generator, engines, 2))
    assert difference.max() <= 1 and difference.mean() < 0.01
    with_settings(folder_of(generator))


def test_every_input_shows_in_the_frames(tiny_ref):
    generator, engines = tiny_ref
    base, (skeletons, picture) = made(generator, engines, 1).astype(int), clip(1)
    for changed in ({"skeletons": 255 - skeletons}, {"picture": 255 - picture}, {"seed": 7}):
        assert abs(made(generator, engines, 1, **changed) - base).mean() > 1


def test_clip_sees_the_original_picture_unless_another_fit_was_asked_for(tiny_ref):
    generator, engines = tiny_ref
    (skeletons, picture), seen = clip(1), []

    def watched(pixels):
        seen.append(pixels)
        return engines["image_embed"](pixels=pixels)

    fitted, image = generator.fit(skeletons), generator.fit(picture[None])
    for original in (None, picture[None]):
        generator.condition({**engines, "image_embed": watched}, [fitted], image, original=original)
    np.testing.assert_array_equal(seen[0], stretch(image, 224, 224, "bicubic"))
    np.testing.assert_array_equal(seen[1], stretch(picture[None], 224, 224, "bicubic"))
    assert (seen[0] != seen[1]).any()


def test_noise_is_torchs_of_all_frames_and_in_half_precision_rounded(tiny_ref, tmp_path):
    generator, _ = tiny_ref
    halved = with_settings(folder_of(generator), half=True)
    for each, dtype in ((generator, torch.float32), (halved, torch.float16)):
        wanted = torch.randn(1, 4, 5, 9, 8, generator=torch.Generator().manual_seed(SEED), dtype=dtype)
        np.testing.assert_array_equal(each.noise(5, SEED), wanted.transpose(1, 2).float().numpy())
    with_settings(folder_of(generator))


def test_what_is_constant_runs_once(tiny_ref):
    generator, engines = tiny_ref
    calls = dict.fromkeys(engines, 0)

    def counting(name):
        def call(**arrays):
            calls[name] += len(arrays["pixels"]) if name in ("pose", "decode") and "pixels" in arrays else 1
            return engines[name](**arrays)
        return call

    made(generator, {name: counting(name) for name in engines}, 10)
    once = ("encode", "image_embed", "reference", "embed")
    assert [calls[name] for name in once] == [1] * 4 and calls["pose"] == 10
    assert calls["denoise"] == 2 * 2 * 4  # windows, branches, steps


def test_deep_cache_is_offered_where_settings_say_so(tiny_ref):
    generator, engines = tiny_ref
    assert SHALLOW not in generator.components
    cached = with_settings(folder_of(generator), shallow=True)
    engines = {**engines, **{name: TorchEngine(cached.components[name], cached.build(name))
                             for name in (FULL, SHALLOW)}}
    found = {}
    for actions in ("FFFF", "FHFH"):
        adapted = Recipe("h", steps=StepPlan(actions)).adapt(cached)
        skeletons, picture = clip(5)
        inputs = adapted.fit(skeletons), adapted.fit(picture[None])[0], SEED
        found[actions] = generate(adapted, engines, *inputs, StepPlan(actions)).astype(int)
    assert 0 < abs(found["FHFH"] - found["FFFF"]).mean() < 20
    with_settings(folder_of(generator))


def test_a_shallow_step_with_its_own_features_is_a_full_one(tiny_ref):
    cached = with_settings(folder_of(tiny_ref[0]), shallow=True)
    engines = {name: TorchEngine(cached.components[name], cached.build(name)) for name in (FULL, SHALLOW)}
    constants = cached.condition(tiny_ref[1], [cached.fit(clip(3)[0])], cached.fit(clip(1)[1][None]))
    latents = cached.noise(3, 0)
    for conditional in (False, True):
        v, features = cached.denoise_full(engines[FULL], latents, 1, constants, conditional)
        again = cached.denoise_shallow(engines[SHALLOW], latents, 1, constants, conditional, features)
        assert apart(again, v) <= 1e-5
    with_settings(folder_of(tiny_ref[0]))


def test_a_lora_of_the_denoiser_changes_the_keys_that_it_makes_of_the_reference(tiny_ref, tmp_path):
    generator, engines = tiny_ref
    layer, file = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k", tmp_path / "style.safetensors"
    save_file({f"unet.{layer}.lora_{half}.weight": torch.ones(shape) for half, shape in (
        ("A", (1, 32)), ("B", (32, 1)))}, file)
    merged = load_generator(f"refnet={folder_of(generator)},lora={file}:0.1")
    assert set(merged.loras) == {"denoise", "reference", "image_embed", "embed"}
    random = np.random.default_rng(0)
    given = {"latents": random.standard_normal((1, 4, 9, 8), np.float32),
             "image_embedding": random.standard_normal((1, 16), np.float32)}
    plain = engines["reference"](**given)
    found = TorchEngine(merged.components["reference"], merged.build("reference"))(**given)
    changed = found["bank_0"] - plain.pop("bank_0")
    assert (changed[..., :32] != 0).any() and not changed[..., 32:].any()  # keys stand before values
    np.testing.assert_allclose(changed[..., :1].repeat(32, 2), changed[..., :32], atol=1e-5)
    assert all(np.array_equal(found[name], array) for name, array in plain.items())


def test_a_decoder_that_overflows_is_an_error_with_what_to_do(tiny_ref):
    generator, engines = tiny_ref
    latents = np.zeros((1, 3, 4, 9, 8), np.float32)
    latents[0, 1] = np.nan
    with pytest.raises(EngineError, match="frames 0 to 2 are not finite.*decode=fp32"):
        list(generator.decode(engines, latents))
