"""Overlaps that recipes, step plans and the tuner give the windows of each bundled generator."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from bench.quality_goal import Goal
from generators.contract import BUNDLED, FROM_FOLDER, load_generator
from generators.generator_error import GeneratorError
from generators.wan.unianimate import PrivateStarts
from generators.windows import OverlapWindows, overlapping
from optimize.steps import tune
from pipeline.blended_denoiser import BlendedDenoiser, step_windows
from pipeline.recipe import BASELINE, Recipe, RecipeError
from pipeline.step_plan import StepPlan
from pipeline.window_denoiser import SerialDenoiser
from tests.wan_checkpoints import CLIP, SETTINGS, SIZES, VAE

UNET = {
    "num_attention_heads": [1, 2], "block_out_channels": [32, 64], "layers_per_block": 1,
    "cross_attention_dim": 16,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
}
SMALL = {"width": 64, "height": 64, "steps": 4}
WAN = {**SETTINGS, "frames": 81, "steps": 4}
# Kind, settings beside the published ones, and which of the tuner's own overlaps (0, 2) are tried.
FAMILIES = [
    ("presenter", {}, [0, 2]),
    ("mimicmotion", SMALL, [2]),
    ("mimicmotion", {**SMALL, "even_windows": True}, [2]),
    ("refnet", SMALL, [0, 2]),
    ("refnet", {**SMALL, "around": False, "window": 48}, []),
    ("wan-fun-control", WAN, [0, 2]),
    ("wan-unianimate", WAN, []),
    ("wan-animate", {**WAN, "frames": 77}, []),
]
FIXED = [FAMILIES[4][:2], FAMILIES[6][:2]]


@pytest.fixture
def load(tmp_path):
    """A function that loads a generator of a kind with these settings, for what needs no weights."""
    def make(kind, settings):
        if kind in BUNDLED:
            return load_generator(kind)
        clip = asdict(CLIP)
        parts = {"mimicmotion": {"unet": UNET, "vae": {}, "image_encoder": clip},
                 "refnet": {"sd-vae-ft-mse": {}, "image_encoder": clip}}
        wan = {"transformer": asdict(SIZES[kind]), "vae": asdict(VAE), "image_encoder": clip
               } if kind in SIZES else {}
        for part, config in parts.get(kind, wan).items():
            (tmp_path / part).mkdir()
            (tmp_path / part / "config.json").write_text(json.dumps(config))
        lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        (tmp_path / "vivace.toml").write_text("".join(lines))
        return load_generator(f"{kind}={tmp_path}")
    return make


def test_every_bundled_generator_is_among_these():
    assert {kind for kind, *_ in FAMILIES} == {*BUNDLED, *FROM_FOLDER}


@pytest.mark.parametrize(("kind", "settings", "tried"), FAMILIES)
def test_the_tuner_tries_the_smaller_overlaps_that_a_generators_rule_takes(
        load, kind, settings, tried, monkeypatch, tmp_path):
    """Of MimicMotion's windows 0 was tried, which ended every tuning before its recipe was written."""
    runner = SimpleNamespace(generator=load(kind, settings), close=lambda: None)
    monkeypatch.setattr(tune, "tuning_runner_of", lambda *given: runner)
    monkeypatch.setattr(tune, "record_of", lambda *given: None)
    (tmp_path / "fast.tuning").mkdir()  # as the runner does
    found = []

    class Ended(Exception):
        pass

    class Tuner:
        def __init__(self, *given):
            pass

        def tune(self, recipes, overlaps):
            found.extend(overlaps)
            raise Ended

    monkeypatch.setattr(tune, "Tuner", Tuner)
    with pytest.raises(Ended):
        tune.tune_folder(tune.TuningJob(tmp_path), Goal(), [BASELINE], tmp_path / "fast.toml", print)
    assert found == tried


@pytest.mark.parametrize("frames", [1, 30, 81, 100, 144, 301])
@pytest.mark.parametrize(("kind", "settings", "tried"), [each for each in FAMILIES if each[2]])
def test_steps_of_such_overlaps_predict_every_frame_and_of_the_same_conditions(
        load, kind, settings, tried, frames):
    generator = load(kind, settings)
    own, axis = generator.windows.condition_indices(frames), generator.frame_axis
    ones = np.ones([len(own) if each == axis else 1 for each in range(5)], np.float32)

    def same(latents, step, action, wanted):
        return (latents.take(window.indices, axis) for window in wanted)

    for overlap in tried:
        plan = StepPlan("F" * generator.scheduler.steps, overlaps=(overlap,))
        made = Recipe("fast", steps=plan).adapt(generator)
        windows = step_windows(made, plan, frames)
        assert windows[0].rule.overlap == overlap < windows[1].rule.overlap
        assert (windows[0].rule.condition_indices(frames) == own).all()
        denoise = BlendedDenoiser(made, same, own, windows)
        for step in (0, 1):
            np.testing.assert_allclose(denoise(ones, step, "F")[0], ones, rtol=1e-6)


@pytest.mark.parametrize(("kind", "settings"), FIXED)
@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 5])
def test_an_overlap_on_which_conditions_depend_is_not_changed_by_a_recipe(load, kind, settings, overlap):
    """Steps saw another window's skeletons, or frames were in no window and became NaN."""
    generator = load(kind, settings)
    plan = StepPlan("F" * generator.scheduler.steps, overlaps=(overlap,))
    for recipe in (Recipe("fast", steps=plan), Recipe("fast", overlap=overlap)):
        with pytest.raises(RecipeError) as caught:
            recipe.adapt(generator)
        assert str(caught.value).startswith(
            f"recipe fast: overlap: must be the generator's own, 4, is {overlap}: the conditions of its wind")
        assert str(caught.value).endswith("leave it out, or change it in the generator's vivace.toml")
    with pytest.raises(ValueError, match="must be the generator's own, 4"):
        step_windows(generator, plan, 100)


@pytest.mark.parametrize(("kind", "settings"), FIXED)
def test_a_recipe_may_name_the_overlap_that_a_generator_has(load, kind, settings):
    generator = load(kind, settings)
    plan = StepPlan("F" * generator.scheduler.steps, overlaps=(4,))
    assert Recipe("fast", steps=plan, overlap=4).adapt(generator).windows == generator.windows


@pytest.mark.parametrize("overlap", [3, 7])
def test_windows_of_unianimate_see_their_own_skeletons_with_the_overlap_of_the_settings(load, overlap):
    generator, frames, shown = load("wan-unianimate", {**WAN, "overlap": overlap}), 161, []

    def denoise(engine, latents, step, constants, conditional):
        shown.append((latents.ravel()[2:], constants["pose"].ravel()[2:]))
        return latents

    rule, steps = generator.windows, generator.scheduler.steps
    starts = [int(place[-1]) - 20 for place in rule.window_indices(frames)]
    numbers = np.concatenate([np.arange(start, start + 21) for start in starts]).astype(np.float32)
    own = rule.condition_indices(frames)
    generator.denoise = denoise  # latents and skeletons are the numbers of their frames
    serial = SerialDenoiser(
        generator, {"denoise": None}, {"pose": numbers.reshape(1, 1, -1, 1, 1)}, own)
    windows = step_windows(generator, StepPlan("F" * steps), frames)
    latents = own.astype(np.float32).reshape(1, 1, -1, 1, 1)
    np.testing.assert_allclose(BlendedDenoiser(generator, serial, own, windows)(latents, 0, "F")[0], latents)
    assert len(shown) == 2 * len(starts) > 4 and all((seen == known).all() for seen, known in shown)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_an_overlap_that_private_frames_replace_is_refused(load, overlap):
    words = f"first 2 latent frames are their own need 2 < overlap < length, got overlap {overlap} of 21"
    with pytest.raises(ValueError, match=words):
        PrivateStarts(21, overlap, 4)
    with pytest.raises(GeneratorError, match=words):
        load("wan-unianimate", {**WAN, "overlap": overlap})


def test_a_rule_without_overlap_is_not_given_one():
    rule = SimpleNamespace(length=4)
    assert tune.smaller_overlaps(rule, (0, 2)) == []
    with pytest.raises(ValueError, match="have none to change; leave it out"):
        overlapping(rule, 0)
    assert overlapping(OverlapWindows(8, 4), 2) == OverlapWindows(8, 2)
