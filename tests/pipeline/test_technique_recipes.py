"""Recipes with a technique: how infer.py runs them, what is refused and when, calibrations."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engines.errors import EngineError, UsageError
from engines.progress import Progress
from generators.checkpoint import open_checkpoint
from generators.contract import load_generator
from generators.samplers import KarrasEuler
from generators.wan.fun_control import FunControlSettings
from pipeline import runner as runners
from pipeline.batch.dataset import find_requests
from pipeline.caches.base_runs import calibrate, signal_changes
from pipeline.caches.calibration import Calibration, find_calibration, load_calibration, save_calibration
from pipeline.caches.network_hooks import find_transformer
from pipeline.caches.technique import TECHNIQUES, Technique, load_technique
from pipeline.parallel.window_parallel_runner import start_parallel_runner
from pipeline.recipe import BASELINE, RecipeError, parse_recipe
from pipeline.runner import Settings, start_runner
from pipeline.video.reader import VideoWriter
from pipeline.window_denoiser import SerialDenoiser
from tests.conftest import skeleton_frames
from tests.techniques import (
    ALL,
    ANY_ENGINE,
    CALIBRATION,
    MARKED,
    STEPS,
    Small,
    recipe_of,
)
from tests.wan_checkpoints import write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "calibrated")


@pytest.fixture(scope="module")
def infers(small, tmp_path_factory):
    """A function: the manifest line of a request by a recipe, as infer.py makes it."""
    folder = tmp_path_factory.mktemp("data")
    for name, frame in (("videos/a.mp4", None), ("images/a.png", skeleton_frames(1, 32, 48)[0])):
        (folder / name).parent.mkdir()
        if frame is not None:
            Image.fromarray(frame).save(folder / name)
    with VideoWriter(folder / "videos/a.mp4", 32, 48, 24) as writer:
        for frame in skeleton_frames(17, 32, 48):
            writer.write(frame)

    def infer(recipe):
        runner = start_runner(Settings("small", recipe), lambda text: None)
        (request,) = find_requests(folder).requests
        line, _ = runner(request, folder, lambda total: Progress("video", total))
        assert line["status"] == "done", line
        return line

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners, "load_generator", lambda name: small)
        yield infer


@pytest.fixture(scope="module")
def base_line(infers):
    return infers(BASELINE)


@pytest.mark.parametrize("name", [*ANY_ENGINE, *MARKED])
def test_a_recipe_names_a_technique_and_infer_makes_its_videos(infers, base_line, name):
    made = infers(recipe_of(name, ALL[name][1]))
    for field in ("frames_sha256", "recipe_sha256", "generator_sha256"):
        assert made[field] != base_line[field]


def test_a_recipe_with_gentle_settings_has_infer_make_the_base_models_frames(infers, base_line):
    made = infers(recipe_of("first-block-cache"))
    assert made["frames_sha256"] == base_line["frames_sha256"]


def test_a_new_calibration_is_another_run(infers, small):
    recipe = recipe_of("teacache", {"threshold": 0.6})
    first = infers(recipe)["generator_sha256"]
    other = Calibration(CALIBRATION.changes, CALIBRATION.ratios, CALIBRATION.signals[::-1])
    save_calibration(other, small, ["b"])
    again = infers(recipe)["generator_sha256"]
    save_calibration(CALIBRATION, small, ["a"])
    assert again != first


@pytest.mark.parametrize("name", TECHNIQUES)
def test_every_technique_states_its_source_with_licence_and_the_values_to_try(small, name):
    technique = load_technique(name)
    assert isinstance(technique, Technique) and technique.name == name
    assert any(licence in technique.source for licence in ("Apache-2.0", "MIT", "BSD"))
    space = technique.search_space(small)
    assert 1 <= len(space) <= 2 and all(len(values) > 1 for values in space.values())
    assert recipe_of(name, {key: values[-1] for key, values in space.items()}).adapt(small)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_recipe_with_a_technique_is_read_back_as_it_was_written(small, name):
    values = {key: each[-1] for key, each in load_technique(name).search_space(small).items()}
    for recipe in (recipe_of(name, values), recipe_of(name)):
        assert parse_recipe(recipe.to_toml(), "cached") == recipe
        assert not recipe.is_baseline and hash(recipe) == hash(parse_recipe(recipe.to_toml(), "cached"))
        assert recipe.settings()["technique"]["name"] == name


@pytest.mark.parametrize(("text", "reason"), [
    ('technique = "teacache"', "technique: must be a table, [technique], is 'teacache'"),
    ("[technique]\nthreshold = 0.2", "technique.name: is missing or no text; python -m pipeline.caches list"),
    ('[technique]\nname = "teacach"',
     "technique.name: unknown technique 'teacach'; did you mean 'teacache'?"),
    ('[technique]\nname = "teacache"\nthreshhold = 0.2',
     "technique.threshhold: unknown setting 'threshhold'; did you mean 'threshold'?"),
    ('[technique]\nname = "teacache"\nthreshold = "0.2"', "technique.threshold: must be a number, is '0.2'"),
    ('[technique]\nname = "teacache"\nthreshold = true', "technique.threshold: must be a number, is True"),
    ('[technique]\nname = "teacache"\nthreshold = inf', "technique.threshold: must be a number, is inf"),
    ('[technique]\nname = "teacache"\n[steps]\nactions = "FSS"', "technique: goes without [steps]: both say"),
    ('backend = "openvino"\n[technique]\nname = "magcache"',
     "technique.name: magcache hooks into the network, which no backend but 'torch' runs as it is, and this "
     "is 'openvino'; choose torch, or"),
    ('backend = "torch-compile"\n[technique]\nname = "seacache"', "technique.name: seacache hooks into the"),
    ('backend = "auto"\n[technique]\nname = "cache-dit"', "technique.name: cache-dit hooks into the network"),
])
def test_what_is_wrong_with_a_technique_is_said_when_the_recipe_is_read(text, reason):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "cached")
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(("name", "settings", "reason"), [
    ("uniform-skip", {"every": 0}, "technique.every: must be a whole number, 1 or more, is 0"),
    ("uniform-skip", {"every": 1.5}, "technique.every: must be a whole number, 1 or more, is 1.5"),
    ("teacache", {"threshold": -0.1}, "technique.threshold: must be 0 or more, is -0.1"),
    ("fewer-steps", {"shift": 0.0}, "technique.shift: must be above 0, is 0.0"),
])
def test_a_value_out_of_range_is_refused_before_the_engines_start(small, name, settings, reason):
    with pytest.raises(RecipeError) as caught:
        recipe_of(name, settings).adapt(small)
    assert str(caught.value) == f"recipe cached: {reason}"


def test_a_technique_that_does_not_go_with_the_generator_is_refused(small):
    other = copy.copy(small)
    other.guidance = 1.0
    with pytest.raises(RecipeError, match="fastercache foretells the unconditional branch, which guidance 1"):
        recipe_of("fastercache").adapt(other)
    other.scheduler = KarrasEuler(STEPS)
    for name in ("fewer-steps", "guidance-interval"):
        with pytest.raises(RecipeError, match=f"{name} is for"):
            recipe_of(name).adapt(other)


@pytest.mark.parametrize(("sampler", "last"), [("flow-diffusers", 0.00893), ("flow", 3 / 22)])
def test_fewer_steps_with_another_shift_are_the_grid_that_a_sampler_of_that_shift_has(sampler, last):
    """The last step's time in training stayed that of the first shift: 0.01479 in place of 0.00893."""
    own = SimpleNamespace(scheduler=FunControlSettings(sampler=sampler).scheduler())
    load_technique("fewer-steps").apply(own, shift=3.0, steps=20)
    assert own.scheduler == FunControlSettings(sampler=sampler, shift=3.0, steps=20).scheduler()
    assert own.scheduler.sigmas[-2] == pytest.approx(last, abs=1e-5)


def test_the_generator_itself_is_left_as_it_was(small):
    recipe_of("fewer-steps", {"steps": 4}).adapt(small)
    recipe_of("magcache", {"threshold": 2.0}).adapt(small)
    assert small.scheduler.steps == STEPS and "build" not in vars(small)


@pytest.mark.parametrize("name", ["teacache", "first-block-cache"])
def test_what_keeps_something_cannot_be_split_over_processes(name):
    with pytest.raises(UsageError, match="the action H or branches together cannot be split"):
        start_parallel_runner(Settings("presenter", recipe_of(name)), ["cpu"], 2, lambda text: None)
    assert recipe_of("fewer-steps").open_denoiser is SerialDenoiser  # keeps nothing


# Calibrations


@pytest.mark.parametrize("name", ["teacache", "magcache"])
def test_without_a_calibration_the_message_says_how_to_make_one(small, name, monkeypatch, tmp_path):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path))
    with pytest.raises(EngineError, match=r"no calibration of small's weights; run: python -m pipeline"):
        recipe_of(name).adapt(small)


def test_teacache_refuses_another_network_than_wans_before_it_asks_for_a_calibration(monkeypatch, tmp_path):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path))
    other = load_generator("examples/my_generator.py:MyGenerator")
    with pytest.raises(RecipeError, match="technique.name: teacache needs the time embedder of a Wan net"):
        recipe_of("teacache").adapt(other)
    save_calibration(CALIBRATION, other, ["a"])
    with pytest.raises(RecipeError, match="teacache needs the time embedder"):
        recipe_of("teacache").adapt(other)


def test_a_calibration_of_base_runs_is_found_by_the_weights(small, make_data, monkeypatch, tmp_path):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    found = calibrate(small, find_requests(make_data({"a": 17})).requests, "cpu", lambda text: None)
    assert len(found.changes) == len(found.signals) == STEPS - 1 and len(found.ratios) == STEPS
    assert min(found.changes) > 0 and found.signals == signal_changes(small)
    path = save_calibration(found, small, ["a"])
    assert load_calibration(path, STEPS) == found and find_calibration(small) == path
    assert "build" not in vars(small)
    for name in ("teacache", "magcache"):
        assert recipe_of(name).adapt(small).technique_files[-1] == path
    elsewhere = Small(tmp_path)  # as in a submission, which has no weights
    assert find_calibration(elsewhere) == path


@pytest.mark.parametrize(("text", "reason"), [
    ("{", "is no calibration"), ("{}", "is no calibration"),
    (json.dumps({"changes": [0.1], "ratios": [], "signals": []}), "is of 2 steps, not of 8"),
])
def test_another_file_is_no_calibration(text, reason, tmp_path):
    (tmp_path / "calibration-1.json").write_text(text)
    with pytest.raises(EngineError, match=f"{reason}.*python -m pipeline.caches calibrate"):
        load_calibration(tmp_path / "calibration-1.json", STEPS)


def test_what_the_network_makes_of_the_time_is_what_torch_makes_of_it(small):
    import torch

    embedder = find_transformer(small.build("denoise")).condition_embedder
    times = torch.from_numpy(small.scheduler.times[:-1] * 1000)
    with torch.inference_mode():
        made = [embedder.time_proj(embedder.act_fn(embedder.time_embedder(embedder.timesteps_proj(t[None]))))
                for t in times]
    expected = [float((new - old).abs().mean() / old.abs().mean())
                for old, new in zip(made, made[1:], strict=False)]
    np.testing.assert_allclose(signal_changes(small), expected, rtol=1e-3)


def changes_of(folder, tensors, shards=1):
    """What signal_changes says of a checkpoint of these tensors, in so many files."""
    from safetensors.torch import save_file

    for path in folder.glob("transformer/*.safetensors"):
        path.unlink()
    names = list(tensors)
    for number in range(shards):
        save_file({name: tensors[name] for name in names[number::shards]},
                  folder / "transformer" / f"w-{number + 1:05}-of-{shards:05}.safetensors")
    return signal_changes(load_generator(f"wan-fun-control={folder}"))


def test_a_calibration_reads_weights_in_any_dtype_and_from_several_files(tmp_path):
    import torch

    folder = write_checkpoint(tmp_path, "wan-fun-control", steps=4)
    stored = {name: t.clone() for name, t in open_checkpoint(folder / "transformer").tensors().items()}
    changes = changes_of(folder, stored)
    assert len(changes) == 3 and changes == changes_of(folder, stored, 2)
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        low = {name: tensor.to(dtype) for name, tensor in stored.items()}
        exact = {name: tensor.float() for name, tensor in low.items()}
        assert changes_of(folder, low) == changes_of(folder, exact) != changes_of(folder, stored)
