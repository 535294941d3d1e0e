"""The example wraps a folder of plain PyTorch, exactly, and gets all the rest with no other change."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bench.__main__ as bench
import build_trt
import infer
import pipeline.__main__ as generators_main
from bench.frame_metrics import psnr
from engines.backends.torch_backend import TorchEngine
from generators.contract import load_generator
from pipeline.recipe import Recipe
from pipeline.sampler import generate
from pipeline.video.reader import read
from submit.pack import pack
from submit.profile import load_profile

ROOT = Path(__file__).parents[1]
NAME = "examples/my_generator.py:MyGenerator"


@pytest.fixture(scope="module")
def mine():
    return load_generator(str(ROOT / NAME))


@pytest.fixture(scope="module")
def built(mine, tmp_path_factory):
    """A folder for VIVACE_BUILT with the example's graphs, as export_onnx.py makes them."""
    folder = tmp_path_factory.mktemp("built")  # the fp32 graphs, of which the others are made, stay in it
    command = [sys.executable, "export_onnx.py", "--generator", NAME, "--precision", "fp16,denoise=int8-fp32",
               "--out", str(folder / mine.name)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "baseline: licence apache-2.0" in answer.stderr
    return folder


def test_frames_are_those_of_the_baselines_own_pipeline(mine, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # the baseline puts its folder first
    pipeline = runpy.run_path(str(ROOT / "examples" / "baseline" / "pipeline.py"))["Pipeline"]()
    draws = np.random.default_rng(3)
    skeletons = draws.integers(0, 256, (16, 96, 64, 3), np.uint8)
    image = draws.integers(0, 256, (96, 64, 3), np.uint8)
    engines = {name: TorchEngine(spec, mine.build(name)) for name, spec in mine.components.items()}
    ours, theirs = generate(mine, engines, skeletons, image, 42), pipeline(skeletons, image, 42)
    assert psnr(ours.astype(np.float32) - theirs) > 60  # torch's normal numbers in NumPy, up to rounding
    assert psnr(ours.astype(np.float32) - pipeline(skeletons, image, 43)) < 30


def test_it_keeps_the_contract(run_main):
    answer = run_main(generators_main, "check", str(ROOT / NAME))
    assert answer.status == 0, answer.out


@pytest.mark.parametrize(("backend", "precision"), [
    ("onnxruntime", "fp32"), ("openvino", "fp32"), ("onnxruntime", "fp16,denoise=int8-fp32")])
def test_its_graphs_make_the_base_models_videos(
    built, run_main, make_data, tmp_path, monkeypatch, backend, precision
):
    monkeypatch.setenv("VIVACE_BUILT", str(built))
    data, made = make_data({"a": 18}), {}
    for out, options in (("base", ()), ("fast", ("--backend", backend, "--precision", precision))):
        answer = run_main(infer, "--generator", str(ROOT / NAME), "--data", data, "--out", tmp_path / out,
                          "--lossless", *options)
        assert answer.status == 0, answer.err
        made[out] = read(tmp_path / out / "a.mp4").frames
    assert made["fast"].shape == (18, 96, 64, 3)
    assert psnr(made["fast"].astype(np.float32) - made["base"]) > (50 if precision == "fp32" else 30)


def test_tensorrt_engines_are_built_from_its_graphs(built, run_main, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(built))
    answer = run_main(build_trt, "--generator", str(ROOT / NAME), "--precision", "fp16", "--target", "89",
                      "--component", "decode")
    assert answer.status == 0 and "decode-fp16" in answer.out, answer.err


@pytest.fixture
def no_pins(monkeypatch):
    """Have packing ask pip for no versions, which takes it longer than all the rest."""
    monkeypatch.setattr("submit.pack.choose", lambda imports, *rest: [])


def test_it_is_judged_and_packed(no_pins, built, run_main, make_data, tmp_path, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(built))
    data, recipe = make_data({"a": 16}), tmp_path / "fast.toml"
    recipe.write_text('backend = "onnxruntime"\nprecision = "fp32"\n')
    own = "--generator", str(ROOT / NAME), "--lossless"
    for script, *options in (
        (infer, *own, "--out", data / "outputs"),
        (infer, *own, "--out", tmp_path / "out", "--recipe", recipe),
        (bench, "--candidate", tmp_path / "out", "--out", tmp_path / "report"),
    ):
        answer = run_main(script, "--data", data, *options)
        assert answer.status == 0, answer.err
    assert (tmp_path / "report" / "index.html").is_file()
    packed = pack(Recipe("x", backend="onnxruntime"), NAME, load_profile("cpu"), tmp_path / "a.zip")
    assert "examples/my_generator.py" in packed.manifest["files"]
    assert not any("baseline" in name for name in packed.manifest["files"])  # graphs need no weights


def test_with_torch_the_folder_is_packed_too(no_pins, tmp_path):
    packed = pack(Recipe("x"), NAME, load_profile("cpu"), tmp_path / "a.zip")
    assert {f"examples/baseline/{name}" for name in ("model.py", "weights.safetensors")} <= set(
        packed.manifest["files"])
