"""One request on every backend of a processor: the same frames, without torch where it is not needed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import infer as script
from bench.frame_metrics import psnr
from engines.artifact import built_folder
from engines.load import Choice, start_engines
from generators.contract import load_generator
from generators.samplers import FlowMatchEuler
from pipeline.batch.dataset import find_requests
from pipeline.sampler import generate
from pipeline.video.image import read_image
from pipeline.video.reader import VideoReader

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ["onnxruntime", "openvino"]
# Runs infer.py where torch cannot be imported, as if it were not installed.
WITHOUT_TORCH = """
import sys, runpy
sys.modules["torch"] = None
runpy.run_path("infer.py", run_name="__main__")
"""


def frames_of(generator, backend, folder, skeletons, image):
    choice = Choice(backend, dict.fromkeys(generator.components, "fp32"), "cpu", folder)
    _, engines = start_engines(generator, choice, lambda text: None)
    return generate(generator, engines, skeletons, image, 42)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tiny_presenter_makes_the_same_frames(backend, tiny, tiny_built):
    random = np.random.default_rng(0)
    skeletons, image = (random.integers(0, 256, (n, 48, 32, 3), np.uint8) for n in (20, 1))
    folder = tiny_built / tiny.name
    base, other = (frames_of(tiny, name, folder, skeletons, image[0]) for name in ("torch", backend))
    assert psnr(other.astype(np.float32) - base) >= 45


@pytest.mark.slow
def test_the_bundled_presenter_makes_the_same_frames_on_every_backend(graph):
    """Errors of an engine add up from step to step, and four are enough to see them."""
    presenter = load_generator("presenter")
    presenter.scheduler = FlowMatchEuler(4, 3.0)
    folder = [graph(presenter, component).path.parent for component in presenter.components][0]
    request = find_requests(ROOT / "data" / "sample", 42).requests[0]
    with VideoReader(request.video) as reader:
        skeletons = presenter.fit(np.stack([frame for frame, _ in zip(reader, range(8), strict=False)]))
    image = presenter.fit(read_image(request.image)[None])[0]
    frames = [frames_of(presenter, name, folder, skeletons, image).astype(np.float32)
              for name in ("torch", *BACKENDS)]
    assert min(psnr(frames[i] - frames[j]) for i, j in ((0, 1), (0, 2), (1, 2))) >= 45


@pytest.fixture
def infer(tiny_file, tiny_built, tmp_path, run_main, monkeypatch):
    """A function that runs infer.py here on the tiny presenter, into tmp_path/out."""
    def run(data, *arguments, built=tiny_built, file=tiny_file):
        monkeypatch.setenv("VIVACE_BUILT", str(built))
        return run_main(script, "--generator", f"{file}:Tiny", "--data", data, "--out", tmp_path / "out",
                        *arguments)
    return run


def infer_without_torch(built, tiny_file, data, out, *arguments):
    command = ["infer.py", "--generator", f"{tiny_file}:Tiny", "--data", data, "--out", out, *arguments]
    code = f"import sys; sys.argv = {list(map(str, command))!r}\n" + WITHOUT_TORCH
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "VIVACE_BUILT": str(built)}, timeout=300)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_becomes_videos_without_torch(backend, tiny_built, tiny_file, make_data, tmp_path):
    result = infer_without_torch(
        tiny_built, tiny_file, make_data({"a": 3}), tmp_path / "out", "--backend", backend)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "a.mp4").is_file()
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert set(line["built"]) == {"encode", "denoise", "decode"} and line["built"]["denoise"]["seconds"] > 0
    assert (tiny_built / "tiny" / line["built"]["denoise"]["file"]).is_file()


def test_auto_says_what_it_took_and_why_not_the_others(infer, make_data):
    result = infer(make_data({"a": 2}), "--backend", "auto")
    assert result.status == 0, result.err
    assert "backend: openvino" in result.err and "not tensorrt: " in result.err


def test_without_built_files_the_error_says_how_to_make_them(infer, make_data, tmp_path):
    result = infer(make_data({"a": 2}), "--backend", "onnxruntime", built=tmp_path)
    assert result.status == 4
    assert "no encode-fp32.onnx in" in result.err
    assert "run: python export_onnx.py --component encode --precision fp32" in result.err


def test_without_torch_the_torch_backend_stops_with_what_to_install(
        tiny_built, tiny_file, make_data, tmp_path):
    result = infer_without_torch(tiny_built, tiny_file, make_data({"a": 2}), tmp_path / "out")
    assert result.returncode == 4 and "run: pip install -r requirements.txt" in result.stderr


def test_changed_weights_make_every_graph_stale(infer, tiny_file, make_data, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(tiny_file.parent, folder)
    with (folder / "denoiser.safetensors").open("ab") as weights:
        weights.write(b"\0")
    result = infer(make_data({"a": 2}), "--backend", "onnxruntime", file=folder / "tiny.py")
    assert result.status == 4
    assert "does not fit: weights was" in result.err and "run: python export_onnx.py" in result.err


@pytest.mark.parametrize(("precision", "text"), [
    ("fp17", "unknown precision 'fp17'; did you mean 'fp16'?"), ("denoise=int8", "begin with one for all")])
def test_an_unknown_precision_is_a_usage_error(precision, text, infer, make_data):
    result = infer(make_data({"a": 2}), "--precision", precision)
    assert result.status == 2 and text in result.err


def test_a_precision_that_was_not_built_is_asked_for_by_name(infer, make_data):
    arguments = ["--backend", "onnxruntime", "--precision", "fp32,denoise=int8-fp32"]
    result = infer(make_data({"a": 2}), *arguments)
    assert result.status == 4 and "no denoise-int8-fp32.onnx" in result.err


def test_built_files_are_kept_apart_by_generator():
    assert built_folder("tiny") != built_folder("presenter")
