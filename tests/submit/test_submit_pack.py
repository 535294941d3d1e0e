"""pack: what goes into the archive, what stays at home, and what it refuses to pack."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engines.artifact import Label, file_sha256, find_onnx, fingerprint, writing
from engines.errors import EngineError
from generators.contract import load_generator
from pipeline.caches.calibration import Calibration, save_calibration
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import BASELINE, Recipe
from pipeline.step_plan import StepPlan
from submit.errors import SubmitError
from submit.pack import pack
from submit.packages import Pin
from submit.pickles import PICKLES
from submit.profile import load_profile
from tests.graphs import copy_built
from tests.submissions import OPENVINO, ROOT, contents, only_wheels, pack_tiny, write_wheels
from tests.test_architecture import imported, sources

TENSORRT = Recipe("gpu", backend="tensorrt")
A800 = "a800-py310-cu124"
RUN_TIME = {"engines", "generators", "pipeline"}  # all that infer.py imports of ours
ROOMS = {*RUN_TIME, "optimize"}  # export_onnx.py and build_trt.py, which are packed too, need some of that


@pytest.fixture(autouse=True)
def offline(tiny_built, monkeypatch, tmp_path):
    """Graphs are found, and pip sees a folder of wheels."""
    monkeypatch.setenv("VIVACE_BUILT", str(tiny_built))
    only_wheels(monkeypatch, write_wheels(tmp_path / "index"))


@pytest.fixture
def fixed_pins(monkeypatch):
    """Packages that nobody had to look up, for targets whose packages are not in the folder of wheels."""
    monkeypatch.setattr("submit.pack.choose", lambda *arguments: [Pin("numpy", "2.0", "BSD")])


def test_the_archive_has_what_the_recipe_needs_and_nothing_else(packed):
    files = contents(packed / "submit.zip")
    top = {name for name in files if "/" not in name}
    assert top == {"infer.py", "export_onnx.py", "build_trt.py", "recipe.toml", "requirements.txt",
                   "requirements-convert.txt", "submission.json", "LICENSE"}
    suffixes = {Path(name).suffix for name in files}
    assert suffixes == {".py", ".toml", ".txt", ".json", ".onnx", ""} and not suffixes & PICKLES
    assert [name for name in files if name.startswith("generator/")] == ["generator/tiny.py"]
    assert sum(name.endswith(".onnx") for name in files) == 3
    assert {name.partition("/")[0] for name in files if "/" in name} == {*ROOMS, "generator"}
    for name in ("infer.py", "pipeline/batch/batch.py", "engines/backends/openvino_backend.py"):
        assert files[name] == (ROOT / name).read_bytes()


def file_of(module):
    """The file of a module of the repository, or of the module that has this name in it; None: neither is."""
    parts = module.split(".")
    paths = (Path(*parts[:end]) for end in (len(parts), len(parts) - 1) if end)
    files = (file for path in paths for file in (f"{path}.py", f"{path}/__init__.py"))
    return next((file for file in files if (ROOT / file).is_file()), None)


def test_rooms_above_the_run_time_stay_at_home_and_nothing_packed_imports_them(
        tmp_path, fixed_pins, make_data):
    recipe = Recipe("quick", steps=StepPlan("F" + 24 * "S"))
    packed = pack(recipe, "presenter", load_profile("cpu"), tmp_path / "submit.zip")
    files = packed.manifest["files"].keys()
    assert {name.partition("/")[0] for name in files if "/" in name} == ROOMS
    offline = "optimize/steps", "optimize/recipes", "optimize/__main__"
    assert not any(name.startswith(offline) for name in files)
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(packed.path, folder)
    for path, code in sources(folder).items():
        for line, module in imported(path, code):
            assert file_of(module) in {None, *files}, f"{path}:{line} imports {module}"
    shutil.move(make_data({"a": 3}), folder / "data")
    command = [sys.executable, "-X", "importtime", "infer.py"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert answer.returncode == 0 and (folder / "out" / "a.mp4").is_file(), answer.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    ours = {name for name in loaded if file_of(name)}
    assert "pipeline.runner" in ours and {name.partition(".")[0] for name in ours} == RUN_TIME


def test_the_manifest_lists_every_other_file_with_its_hash_and_the_tools(packed, tmp_path):
    files = contents(packed / "submit.zip")
    manifest = json.loads(files.pop("submission.json"))
    assert manifest["files"].keys() == files.keys()
    (tmp_path / "one").write_bytes(files["infer.py"])
    assert manifest["files"]["infer.py"] == file_sha256(tmp_path / "one")
    assert {"torch", "onnx", "python", "pip"} <= manifest["tools"].keys()
    assert manifest["entry"] == {"generator": "generator/tiny.py:Tiny", "recipe": "recipe.toml",
                                 "data": "data", "out": "out", "restart": True, "device": "cpu",
                                 "build": False}
    assert "GPL" in manifest["licences"]["imageio-ffmpeg"]


def test_requirements_are_exact_complete_and_without_torch(packed):
    files = contents(packed / "submit.zip")
    lines = files["requirements.txt"].decode().splitlines()
    names = [line.partition("==")[0] for line in lines[1:]]
    assert names == ["imageio-ffmpeg", "numpy", "openvino", "openvino-telemetry", "pillow", "tqdm"]
    assert all("==" in line for line in lines[1:])


def test_the_same_inputs_give_the_same_bytes_with_wheels_too(packed, tiny_file, tmp_path):
    for before, wheels in (("submit.zip", False), ("wheels.zip", True)):
        again = pack_tiny(tiny_file, tmp_path / "again.zip", wheels=wheels)
        assert again.sha256 == file_sha256(again.path) == file_sha256(packed / before)
    files = contents(again.path)
    assert sum(name.endswith(".whl") for name in files) == 6
    assert files["requirements.txt"].count(b"--hash=sha256:") == 6
    assert b"--no-index\n--find-links wheels\n" in files["requirements.txt"]


def test_the_unpacked_script_runs_by_its_defaults_from_another_folder(packed, tmp_path, make_data):
    folder = tmp_path / "解压 1"
    shutil.unpack_archive(packed / "submit.zip", folder)
    shutil.move(make_data({"a": 3}), folder / "data")
    command = [sys.executable, "../解压 1/infer.py"]
    (tmp_path / "elsewhere").mkdir()
    answer = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    line = json.loads((folder / "out" / "manifest.jsonl").read_text())
    assert (line["backend"], line["generator"], line["recipe"]) == ("openvino", "tiny", "recipe")
    again = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert again.returncode == 0 and "kept" not in again.stderr  # a grader's second run is a whole one
    assert (folder / "out" / "a.mp4").is_file()


def test_a_techniques_file_and_calibration_come_along_and_it_runs_without_weights(
        tiny, tiny_file, tiny_built, tmp_path, make_data, fixed_pins, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(copy_built(tiny_built, tmp_path / "built")))
    recipe = replace(OPENVINO, technique=TechniqueChoice("teacache", {"threshold": 0.2}))
    with pytest.raises(EngineError, match="no calibration of tiny's weights"):
        pack_tiny(tiny_file, tmp_path / "submit.zip", recipe)
    calibration = save_calibration(Calibration((0.3,), (), (0.1,)), tiny, ["a"])
    packed = pack_tiny(tiny_file, tmp_path / "submit.zip", recipe)
    names = contents(packed.path).keys()
    assert {"pipeline/caches/teacache.py", f"engines/built/tiny/{calibration.name}"} <= names
    assert not any(name.endswith(".safetensors") for name in names)
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(packed.path, folder)
    shutil.move(make_data({"a": 3}), folder / "data")
    monkeypatch.delenv("VIVACE_BUILT")
    answer = subprocess.run([sys.executable, folder / "infer.py"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(("name", "packages"), [
    ("uniform-skip", set()), ("first-block-cache", {"diffusers", "torch"}),
    ("cache-dit", {"diffusers", "torch", "cache_dit", "transformers"}),
])
def test_a_technique_brings_the_packages_that_its_file_imports(
        tiny_file, tmp_path, monkeypatch, name, packages):
    asked = []
    monkeypatch.setattr("submit.pack.choose", lambda imports, *rest: asked.extend(imports) or [])
    backend = "torch" if packages else "openvino"
    pack_tiny(tiny_file, tmp_path / "submit.zip", Recipe("quick", backend, technique=TechniqueChoice(name)))
    assert {"diffusers", "torch", "cache_dit", "transformers"} & set(asked) == packages


def test_with_torch_the_weights_come_along(tiny_file, tmp_path, fixed_pins):
    files = contents(pack_tiny(tiny_file, tmp_path / "submit.zip", BASELINE).path)
    assert {"generator/autoencoder.safetensors", "generator/denoiser.safetensors"} <= files.keys()
    assert not any(name.endswith(".onnx") for name in files)


def test_weights_that_are_a_pickle_are_refused_before_an_archive_is_made_that_check_would_refuse(
        tiny_file, tmp_path, fixed_pins):
    copy = shutil.copytree(tiny_file.parent, tmp_path / "mine") / tiny_file.name
    copy.with_name("more.pt").write_bytes(b"PK")
    more = "        self.fingerprint_files += (Path(__file__).parent / 'more.pt',)\n"
    copy.write_text(copy.read_text() + more)
    with pytest.raises(SubmitError, match="more.pt is a pickle, .* save its tensors as safetensors"):
        pack_tiny(copy, tmp_path / "submit.zip", BASELINE)
    assert not (tmp_path / "submit.zip").exists()


def test_a_generator_of_the_repository_keeps_its_place(tmp_path, fixed_pins):
    packed = pack(BASELINE, "examples/my_generator.py:MyGenerator", load_profile("cpu"), tmp_path / "a.zip")
    assert packed.manifest["entry"]["generator"] == "examples/my_generator.py:MyGenerator"
    assert "examples/my_generator.py" in packed.manifest["files"]


def test_where_weights_are_missing_a_graph_is_not_held_against_them(tmp_path):
    presenter = type(load_generator("presenter"))(tmp_path)
    assert presenter.fingerprint_files and fingerprint(presenter.fingerprint_files) is None


@pytest.mark.parametrize("precision", ["native", "bf16"])
def test_what_may_compute_in_bfloat16_starts_from_the_fp32_graphs(tiny_file, tmp_path, fixed_pins, precision):
    packed = pack_tiny(tiny_file, tmp_path / "a.zip", Recipe("x", backend="openvino", precision=precision))
    graphs = [Path(name).name for name in contents(packed.path) if name.endswith(".onnx")]
    assert len(graphs) == 3 and all("-fp32-" in name for name in graphs)


def test_graphs_that_are_missing_are_named_with_the_command(tiny_file, tmp_path):
    with pytest.raises(EngineError, match="no encode-fp16.onnx in .*run: python export_onnx.py"):
        pack_tiny(tiny_file, tmp_path / "a.zip", Recipe("x", backend="openvino", precision="fp16"))
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(("recipe", "target", "text"), [
    (Recipe("x", backend="auto"), "cpu", "the recipe's backend is auto"),
    (TENSORRT, "cpu", "TensorRT needs a GPU; profile cpu has none"),
    (OPENVINO, A800, "openvino is imported and requirements-gpu.txt does not name openvino"),
])
def test_what_cannot_run_there_is_refused(tiny_file, tmp_path, recipe, target, text):
    with pytest.raises(SubmitError, match=text):
        pack_tiny(tiny_file, tmp_path / "a.zip", recipe, target)


def test_sources_away_from_the_generators_file_are_refused(tiny_file, tmp_path, fixed_pins):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tiny_file.parent)!r})\nfrom tiny import Tiny as Mine\n")
    with pytest.raises(SubmitError, match="is a source of the generator, but does not lie beside"):
        pack(BASELINE, f"{tmp_path / 'far' / 'mine.py'}:Mine", load_profile("cpu"), tmp_path / "a.zip")


# TensorRT


def write_engines(tiny, folder, sm, name):
    """Files that say they are the tiny presenter's engines for that GPU."""
    for component in tiny.components:
        graph = find_onnx(folder / tiny.name, tiny, component, "fp32").content
        built_from = {"component": component, "precision": "fp32", "onnx": graph, "os": "Linux-x86_64",
                      "spec": tiny.components[component].described(), "targets": {sm: name},
                      "toolchain": {"flavour": "tensorrt", "version": "10.13.3.9"},
                      "builder": {"level": 3, "activations": "resized"}}
        with writing(folder / tiny.name, Label(component, "fp32", ".engine"), built_from) as draft:
            draft.path.write_bytes(b"engine")


def test_for_another_gpu_graphs_go_and_engines_are_built_at_the_first_run(tiny_file, tmp_path, fixed_pins):
    packed = pack_tiny(tiny_file, tmp_path / "a.zip", TENSORRT, A800)
    assert packed.manifest["entry"]["build"] is True and packed.manifest["entry"]["device"] == "cuda"
    assert packed.manifest["build"]["components"] == ["encode", "denoise", "decode"]
    assert packed.manifest["build"]["seconds_at_a_guess"] == 180
    assert sum(name.endswith(".onnx") for name in packed.manifest["files"]) == 3
    assert "build_trt.py" in packed.manifest["files"]


def test_engines_for_the_target_go_with_their_graphs_and_others_stay(
        tiny, tiny_file, tiny_built, tmp_path, fixed_pins, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(copy_built(tiny_built, tmp_path / "built")))
    write_engines(tiny, tmp_path / "built", "sm_90", "NVIDIA H200")
    packed = pack_tiny(tiny_file, tmp_path / "a.zip", TENSORRT, A800)
    assert packed.manifest["build"]["components"]
    assert not any(".engine" in name for name in packed.manifest["files"])
    write_engines(tiny, tmp_path / "built", "sm_80", "NVIDIA A800-SXM4-80GB")
    packed = pack_tiny(tiny_file, tmp_path / "a.zip", TENSORRT, A800)
    assert packed.manifest["entry"]["build"] is False
    assert sum(name.endswith(".engine") for name in packed.manifest["files"]) == 3
    assert sum(name.endswith(".onnx") for name in packed.manifest["files"]) == 3


def test_engines_that_take_too_long_to_build_there_are_refused(tiny_file, tmp_path, fixed_pins):
    (tmp_path / "slow.toml").write_text(f'like = "{A800}"\nbuild_component_seconds = 600\n')
    with pytest.raises(SubmitError, match="takes 1800 s at a guess, more than the 1200 s allowed"):
        pack_tiny(tiny_file, tmp_path / "a.zip", TENSORRT, str(tmp_path / "slow.toml"))
