"""The example of the reference-net kind shows its baseline's frames, beside modules called as ours are."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline.__main__ as generators_main
from bench.frame_metrics import psnr
from engines.backends.torch_backend import TorchEngine
from generators.contract import load_generator
from pipeline.recipe import Recipe
from pipeline.sampler import generate
from submit.pack import pack
from submit.profile import load_profile

ROOT = Path(__file__).parents[1]
NAME = "examples/reference_net/wrapper.py:ReferenceNet"


@pytest.fixture(scope="module")
def wrapper():
    return load_generator(str(ROOT / NAME))


@pytest.mark.parametrize("frames", [8, 20, 27])
def test_frames_are_those_of_the_baselines_own_pipeline(wrapper, monkeypatch, frames):
    folder = ROOT / "examples" / "reference_net"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    baseline = runpy.run_path(str(folder / "pipeline.py"))["Pipeline"]()
    monkeypatch.delitem(sys.modules, "models")
    draws = np.random.default_rng(3)
    skeletons = draws.integers(0, 256, (frames, 96, 64, 3), np.uint8)
    image = draws.integers(0, 256, (96, 64, 3), np.uint8)
    engines = {name: TorchEngine(spec, wrapper.build(name)) for name, spec in wrapper.components.items()}
    ours, theirs = generate(wrapper, engines, skeletons, image, 42), baseline(skeletons, image, 42)
    assert ours.shape == theirs.shape == (frames, 96, 64, 3)
    assert psnr(ours.astype(np.float32) - theirs) > 60  # torch's normal numbers in NumPy, up to rounding
    assert psnr(ours.astype(np.float32) - baseline(skeletons, image, 43)) < 30


def test_it_keeps_the_contract(run_main):
    answer = run_main(generators_main, "check", str(ROOT / NAME))
    assert answer.status == 0, answer.out


def test_its_own_modules_are_packed(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("submit.pack.choose", lambda imports, *rest: asked.extend(imports) or [])
    packed = pack(Recipe("x"), NAME, load_profile("cpu"), tmp_path / "a.zip")
    files = {each for each in packed.manifest["files"] if each.startswith("examples/")}
    own = ("wrapper.py", "models.py", "weights.safetensors")
    assert files == {f"examples/reference_net/{name}" for name in own}
    assert "generators/uniform_windows.py" in packed.manifest["files"] and "models" not in asked


def test_docs_say_its_size():
    lines = len((ROOT / "examples" / "reference_net" / "wrapper.py").read_text().splitlines())
    assert f"| {lines} lines |" in (ROOT / "docs" / "wrapping.md").read_text()
