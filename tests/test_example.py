"""The example wraps a folder of plain PyTorch, exactly, and gets all the rest with no other change."""

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import bench.__main__ as bench
import build_trt
import export_onnx
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
    words = ["export_onnx.py", "--generator", str(ROOT / NAME), "--precision", "fp16,denoise=int8-fp32",
             "--out", str(folder / mine.name)]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()), redirect_stderr(said):
        patch.setattr(sys, "argv", words)
        assert export_onnx.main() == 0, said.getvalue()
    assert "baseline: licence apache-2.0" in said.getvalue()
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


def test_it_makes_a_video_from_a_data_folder_and_its_graphs_make_the_same(
        built, run_main, make_data, tmp_path, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(built))
    data = make_data({"a": 18})

    def clip(out, *options):
        answer = run_main(infer, "--generator", str(ROOT / NAME), "--data", data, "--out", tmp_path / out,
                          "--lossless", *options)
        assert answer.status == 0 and answer.out == "" and "1 of 1 videos are in" in answer.err, answer.err
        return read(tmp_path / out / "a.mp4")

    base = clip("base")
    assert base.frames.shape == (18, 96, 64, 3) and base.fps == 24
    for backend, precision, least in (
            ("onnxruntime", "fp32", 50), ("openvino", "fp32", 50),
            ("onnxruntime", "fp16,denoise=int8-fp32", 30)):
        made = clip(f"{backend} {least}", "--backend", backend, "--precision", precision).frames
        assert psnr(made.astype(np.float32) - base.frames) > least, (backend, precision)


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
