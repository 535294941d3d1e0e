"""Adapters in identities: which file has which scale, folders, the settings beside, networks without any."""

from pathlib import Path

import pytest

from engines.artifact import fingerprint_of
from engines.onnx.export import OPSET, TOOLS, identity
from generators.adapters import Lora, take_on
from generators.contract import load_generator
from optimize.steps.tune import TuningJob
from optimize.steps.tuning_runner import TuningRunner
from optimize.techniques import TechniqueRuns
from pipeline.batch.dataset import find_requests
from pipeline.caches.calibration import Calibration, save_calibration
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import Recipe
from pipeline.runner import VideoRunner

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
REQUESTS = find_requests(SAMPLE).requests[:1]
NAME = "pytorch_lora_weights.safetensors"


@pytest.fixture
def identities(tmp_path, monkeypatch):
    """A function that gives all identities with these adapters, by what they are for."""
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))

    def made(*loras):
        generator = load_generator("".join(["presenter", *(f",lora={lora}" for lora in loras)]))
        tuning = TuningRunner(REQUESTS, generator, "cpu", tmp_path, judge=None)
        recipe = Recipe("x", technique=TechniqueChoice("uniform-skip"))
        return {"graph": identity(generator, "denoise", "fp32", OPSET, TOOLS),
                "run": VideoRunner(generator, {}).identity,
                "tuning": tuning.identity, "base runs": tuning.clips[0].folder.name,
                "technique": TechniqueRuns(recipe, generator, TuningJob(SAMPLE), tmp_path).identity(REQUESTS),
                "calibration": save_calibration(Calibration((1.0,)), generator, ["a"]).name}
    return made


def adapter(folder, content, name=NAME):
    """A file that stands for an adapter; nothing here loads it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def differ(one, other):
    """Whether none of the identities is the same."""
    return not [what for what, found in one.items() if found == other[what]]


def test_which_of_two_files_of_one_name_has_which_scale_counts(identities, tmp_path):
    a, b = adapter(tmp_path / "a", "style"), adapter(tmp_path / "b", "person")
    was = identities(f"{a}:1", f"{b}:0.2")
    assert differ(was, identities(f"{b}:1", f"{a}:0.2"))
    assert was == identities(f"{a}:1.0", f"{b}:0.20")


def test_another_scale_is_another_base_model_everywhere(identities, tmp_path):
    a = adapter(tmp_path / "a", "style")
    assert differ(identities(f"{a}:1"), identities(f"{a}:0.2"))
    assert differ(identities(a), identities())


def test_of_three_of_one_name_it_counts_which_has_the_scale_that_two_others_have(identities, tmp_path):
    a, b, c = (adapter(tmp_path / each, each) for each in "abc")
    assert differ(identities(f"{a}:1", f"{b}:1", f"{c}:0.5"), identities(f"{a}:1", f"{b}:0.5", f"{c}:0.5"))


def test_of_a_folder_its_files_count_and_the_base_models_too(identities, tmp_path):
    folder = adapter(tmp_path / "a", "style").parent
    was = identities(folder)
    assert was["graph"]["weights"] and was["run"]["generator_sha256"]
    adapter(folder, "another")
    assert differ(was, identities(folder))


@pytest.mark.parametrize("named", ["adapter_model.safetensors", "alone.safetensors"])
def test_the_settings_that_tell_alpha_count(identities, tmp_path, named):
    lora, config = adapter(tmp_path / "a", "style", named), tmp_path / "a" / "adapter_config.json"
    config.write_text('{"lora_alpha": 4}')
    was = identities(lora)
    config.write_text('{"lora_alpha": 16}')
    assert differ(was, identities(lora))


def test_settings_of_another_adapter_in_the_folder_do_not(identities, tmp_path):
    lora, config = adapter(tmp_path / "a", "style"), tmp_path / "a" / "adapter_config.json"
    adapter(tmp_path / "a", "person", "adapter_model.safetensors")
    was = identities(lora)
    config.write_text('{"lora_alpha": 16}')
    assert was == identities(lora)


def test_where_an_adapter_is_not_here_only_weights_are_unknown():
    generator = load_generator("presenter,lora=none.safetensors:0.5")  # as in a submission
    assert fingerprint_of(generator, "denoise") is None and fingerprint_of(generator, "decode")
    assert VideoRunner(generator, {}).identity["loras"] == ["none.safetensors:0.5"]


def test_files_that_a_class_names_by_component_stay_with_those_without_adapters(tmp_path):
    class Mine:
        loras, components = {}, {"denoise": None, "decode": None, "encode": None}

        def __init__(self, *loras):
            network, decoder = adapter(tmp_path, "1", "network"), adapter(tmp_path, "2", "decoder")
            self.fingerprint_files = network, decoder
            self.component_files = {"denoise": [network], "decode": [decoder]}
            take_on(self, loras, ["denoise"])

    plain, adapted = Mine(), Mine(Lora(adapter(tmp_path, "3")))
    own, other = ({name: fingerprint_of(each, name) for name in each.components} for each in (plain, adapted))
    assert {name for name in own if own[name] != other[name]} == {"denoise"}
    assert len(set(own.values())) == 3
