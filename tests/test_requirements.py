"""The requirements name what the code imports, and agree where both files name the same."""

import ast
import re
import sys
from pathlib import Path

import pytest

from submit.packages import choose
from submit.profile import Profile, load_profile

ROOT = Path(__file__).resolve().parent.parent
FILES = ["requirements.txt", "requirements-gpu.txt"]
TEST = "requirements-test.txt"  # beyond requirements.txt
# Imported under another name than installed.
NAMES = {"PIL": "pillow", "cv2": "opencv-python-headless", "tensorrt_rtx": "tensorrt-rtx",
         "open_clip": "open-clip-torch", "cuda": "cuda-python", "cupy": "cupy-cuda13x",
         "onnx_ir": "onnxscript",
         "imageio_ffmpeg": "imageio-ffmpeg", "cache_dit": "cache-dit",
         "prometheus_client": "prometheus-client", "sklearn": "scikit-learn", "tomllib": "tomli"}
OURS = {"engines", "generators", "optimize", "pipeline", "bench", "submit", "finish", "examples"}
OPTIONAL = {"open-clip-torch", "transformers", "ftfy",  # a comment in requirements-gpu.txt has them
            "pi_heif",  # a comment in requirements.txt
            "cache-dit",  # pipeline/caches/requirements.txt
            "ray",  # requirements-cluster.txt
            "scikit-learn"}  # requirements-finish.txt
GPU_ONLY = {"pycuda", "cuda-python", "cupy-cuda13x", "tensorrt", "tensorrt-rtx", "onnxruntime-gpu"}


def required(file):
    """Package and range of every requirement of a file, without extras."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return dict(re.match(r"([\w-]+)(?:\[[\w,]+\])?(.*)", line).groups() for line in lines if line)


def imported(rooms=OURS):
    """Third-party packages that code of rooms and scripts imports, as they are installed."""
    found = set()
    inside = (path for room in rooms for path in (ROOT / room).rglob("*.py"))
    for path in [*ROOT.glob("*.py"), *inside]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    local = {"serve", "__future__", "infer", "model", "models"}
    third_party = found - OURS - local - set(sys.stdlib_module_names)
    return {NAMES.get(name, name) for name in third_party} - OPTIONAL


def test_all_that_is_imported_is_required():
    assert imported() - set(required("requirements.txt")) <= GPU_ONLY
    lacking = imported() - set(required("requirements-gpu.txt"))
    assert lacking <= {"onnxruntime", "openvino"}  # -gpu; processors


def test_all_that_the_service_imports_is_required_beside():
    both = required("requirements.txt").keys() | required("requirements-serve.txt").keys()
    assert imported({"serve"}) <= both


def test_both_files_give_the_same_ranges():
    one, other = {**required(TEST), **required(FILES[0])}, required(FILES[1])
    assert {name: one[name] for name in one.keys() & other.keys()} == {
        name: other[name] for name in one.keys() & other.keys()}
    assert one["onnxruntime"] == other["onnxruntime-gpu"]


@pytest.mark.parametrize("file", [
    *FILES, TEST, "requirements-cluster.txt", "requirements-serve.txt", "requirements-finish.txt",
    "pipeline/caches/requirements.txt", "lab/requirements.txt"])
def test_every_requirement_states_its_licence(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if re.match(r"\w", line)]
    assert lines and all(re.search(r"# (BSD|MIT|Apache|MPL|NVIDIA|PSF)", line) for line in lines)


def test_cupy_comes_with_the_compiler_of_its_kernels_for_each_targets_cuda(monkeypatch):
    asked = []

    def resolved(wanted, *others):
        asked.append(wanted)
        return []
    monkeypatch.setattr("submit.packages.resolve", resolved)
    choose(["cupy"], Profile("any", device="cuda", gpu={"sm": "sm_90", "name": "H"}), ROOT)
    for profile in map(load_profile, ("a800-py310-cu124", "h200-cu130")):
        choose(["cupy"], profile, ROOT)
    assert asked == [["cupy-cuda13x[ctk]>=14,<15"],
                     ["cupy-cuda12x[ctk]>=14,<15", "cuda-toolkit==12.4.*"],
                     ["cupy-cuda13x[ctk]>=14,<15", "cuda-toolkit==13.0.*"]]
