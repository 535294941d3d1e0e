"""build_trt.py: what it prints, and the exit status of what cannot be built."""

import subprocess
import sys
from pathlib import Path

import pytest

import build_trt
from engines.errors import Exit
from tests.graphs import copy_built

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tiny_built, tmp_path_factory):
    """A folder for VIVACE_BUILT with the tiny presenter's fp32 graphs."""
    return copy_built(tiny_built, tmp_path_factory.mktemp("built"))


@pytest.fixture
def run(tiny_file, built, run_main, monkeypatch):
    """A function that runs the script on the tiny presenter."""
    def run(*arguments, folder=built):
        monkeypatch.setenv("VIVACE_BUILT", str(folder))
        return run_main(build_trt, "--generator", f"{tiny_file}:Tiny", *arguments)
    return run


DENOISE = ("--component", "denoise", "--precision", "fp32", "--target", "86,89")


def test_it_builds_without_a_gpu_and_prints_where_the_engine_is(run, built):
    answer = run(*DENOISE)
    assert answer.status == Exit.OK, answer.err
    path, _, facts = answer.out.strip().partition(": ")
    assert Path(path).is_file() and Path(path).parent == built / "tiny" and " MB in " in facts


def test_a_dry_run_prints_sizes_and_builds_nothing(run, built):
    before = sorted((built / "tiny").iterdir())
    answer = run(*DENOISE, "--dry-run", "--shapes", "dynamic", "--level", "2")
    assert answer.status == Exit.OK, answer.err
    assert answer.out.startswith("denoise-fp32.engine: tensorrt_rtx 1.7") and answer.err == ""
    assert "for sm_86, sm_89, level 2, dynamic shapes" in answer.out
    assert "time: 1 .. 1 .. 2" in answer.out
    assert sorted((built / "tiny").iterdir()) == before


@pytest.mark.parametrize(("arguments", "status", "reason"), [
    (("--precision", "fp61"), Exit.USAGE, "unknown precision 'fp61'; did you mean 'fp16'?"),
    (("--component", "denoize"), Exit.USAGE, "unknown component 'denoize'"),
    (("--level", "9"), Exit.USAGE, "the builder level is 0 to 5, got 9"),
    (("--memory-limit", "0"), Exit.USAGE, "must be a number above 0, got 0"),
    (("--target", "ada"), Exit.USAGE, "--target takes gpu, gpu:1 (the second), or compute"),
    (("--target", "90"), Exit.ENVIRONMENT, "does not build for sm_90"),
    (("--target", "86", "--precision", "fp8"), Exit.ENVIRONMENT, "fp8 needs compute capability 8.9"),
    (("--target", "86"), Exit.ENVIRONMENT, "run: python export_onnx.py --component encode --precision fp16"),
])
def test_what_cannot_be_built_has_a_reason_and_an_exit_status(run, arguments, status, reason):
    answer = run(*arguments)
    assert answer.status == status and reason in answer.err and answer.out == ""
    assert answer.err.startswith(("build_trt.py: ", "usage: build_trt.py "))
    assert "Traceback" not in answer.err


def test_a_corrupt_graph_is_an_exit_status_of_its_own(run, built, tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for path in (built / "tiny").glob("*.onnx*"):
        (folder / path.name).write_bytes(path.read_bytes())
    graph = next(folder.glob("denoise*.onnx"))
    graph.write_bytes(graph.read_bytes()[:5000])
    answer = run(*DENOISE, folder=tmp_path)
    assert answer.status == Exit.ENVIRONMENT and f"the bytes of {graph.name} changed" in answer.err


def test_help_answers_without_a_heavy_package():
    command = [sys.executable, "-X", "importtime", "build_trt.py", "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert answer.returncode == 0 and "--dry-run" in answer.stdout
    assert loaded.isdisjoint({"torch", "onnx", "onnxruntime", "tensorrt_rtx", "cuda.bindings.driver", "tqdm"})
