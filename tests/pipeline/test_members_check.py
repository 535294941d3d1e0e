"""What is wrong with a generator's members is explained by the check, and never ends it in a traceback."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline.__main__ as check_main
from engines.backends.torch_backend import TorchEngine
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from generators.contract import GeneratorError
from generators.samplers import FlowMatchEuler
from generators.windows import OverlapWindows
from pipeline.check_generator import check_generator
from pipeline.component_check import check_module
from pipeline.sampler import Sampler

LATENTS = (1, 4, 4, 2, 2)
DENOISE = ComponentSpec(
    "denoise", Cadence.STEP, (TensorSpec("latents", LATENTS), TensorSpec("on", (1,))),
    (TensorSpec("flow", LATENTS),))


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, latents, on):
        return latents * self.scale * (0.5 + on)


class Sound:
    """The least that keeps the contract."""

    name, components, fingerprint_files = "sound", {"denoise": DENOISE}, (Path(__file__),)
    scheduler, guidance, windows, frame_axis = FlowMatchEuler(2), 1.0, OverlapWindows(4, 1), 2
    per_frame, size, chunk = frozenset(), (16, 16), 4

    def build(self, component):
        return Scaled()

    def fit(self, pixels):
        return np.zeros((len(pixels), 16, 16, 3), np.uint8)

    def condition(self, engines, chunks, image):
        return {}

    def noise(self, frames, seed):
        drawn = np.random.Generator(np.random.Philox(seed)).standard_normal((1, 4, frames, 2, 2))
        return drawn.astype(np.float32)

    def denoise(self, engine, latents, step, constants, conditional):
        return engine(latents=latents, on=np.array([conditional], np.float32))["flow"]

    def decode(self, engines, latents):
        yield np.zeros((latents.shape[2], 16, 16, 3), np.uint8)


def wrong_with(**members):
    made = type("Mine", (Sound,), members)()
    return {name: findings for name, findings in check_generator(made).items() if findings}


def forgot(self, component):
    Scaled()


@pytest.mark.parametrize(("member", "value", "check", "wrong", "mend"), [
    ("build", forgot, "component denoise", "gives NoneType, no torch module", "return the module"),
    ("components", [DENOISE], "components", "of type list, no dict", "spec.name: spec"),
    ("components", None, "components", "of type NoneType, no dict", "spec.name: spec"),
    ("fingerprint_files", None, "settings", "None, no sequence of paths", "a comma"),
    ("fingerprint_files", "weights.pt", "settings", "'weights.pt', no sequence of paths", "a comma"),
    ("fingerprint_files", Path("weights.pt"), "settings", "no sequence of paths", "a comma"),
    ("fingerprint_files", ("weights.pt",), "settings", "no sequence of paths", "a comma"),
    ("scheduler", object(), "settings", "AttributeError: 'object' object has no attribute 'times'",
     "docs/wrapping.md"),
    ("windows", None, "settings", "AttributeError: 'NoneType'", "docs/wrapping.md"),
    ("size", None, "settings", "it is None", "width, height"),
    ("size", (16.0, 16.0), "settings", "it is (16.0, 16.0)", "whole pixels"),
    ("guidance", np.array([1.0, 2.0]), "settings", "a pair for first and last frame", "wrapping.md"),
    ("guidance", [1.0, 2.0, 3.0], "settings", "not [1.0, 2.0, 3.0]", "wrapping.md"),
    ("guidance", "7.5", "settings", "not '7.5'", "wrapping.md"),
    ("component_files", ["a"], "settings", "AttributeError: 'list'", "docs/wrapping.md"),
])
def test_a_wrong_member_is_explained(member, value, check, wrong, mend):
    found = wrong_with(**{member: value})
    assert list(found) == [check]
    assert wrong in found[check][0].wrong and mend in found[check][0].mend, str(found[check][0])


def test_the_command_says_so_too(monkeypatch, run_main):
    lost = type("Mine", (Sound,), {"fingerprint_files": None})()
    monkeypatch.setattr(check_main, "load_generator", lambda name: lost)
    answer = run_main(check_main, "check", "mine.py:Mine")
    assert answer.status == 2 and "fingerprint_files: it is None, no sequence of paths" in answer.out


@pytest.mark.parametrize("guidance", [2.5, np.float32(2.5), (1.5, 3.0), [1.5, 3.0], {"a": 1.5, "b": -0.5}])
def test_each_kind_of_guidance_passes(guidance):
    branches = {}
    if isinstance(guidance, dict):
        def together(self, engine, latents, step, constants, branches):
            made = [self.denoise(engine, latents, step, constants, each == "a") for each in branches]
            return np.concatenate(made)
        branches = {"denoise_branches": together}
    assert wrong_with(guidance=guidance, **branches) == {}


def sampled(guidance):
    made = type("Mine", (Sound,), {"guidance": guidance})()
    return Sampler(made, {"denoise": TorchEngine(DENOISE, Scaled())}).sample({}, 4, 1).latents


def test_a_pair_of_guidance_may_be_a_list_and_goes_along_the_frames():
    pair = sampled([1.5, 3.0])
    np.testing.assert_array_equal(pair, sampled((1.5, 3.0)))
    np.testing.assert_allclose(pair[:, :, 0], sampled(1.5)[:, :, 0], rtol=1e-5)
    np.testing.assert_allclose(pair[:, :, -1], sampled(3.0)[:, :, -1], rtol=1e-5)
    with pytest.raises(GeneratorError, match=r"guidance: a number, a pair .* not \[1.5, 2, 2.5, 3\]"):
        sampled([1.5, 2, 2.5, 3])


@pytest.mark.parametrize(("give", "kind"), [
    (lambda y: [y], "list"), (lambda y: {"sample": y}, "dict"), (lambda y: None, "NoneType"),
    (lambda y: (y, None), "NoneType")])
def test_outputs_that_are_no_tensors_are_named_by_their_kind(give, kind):
    class Other(Scaled):
        def forward(self, x):
            return give(x * self.scale)

    spec = ComponentSpec("net", Cadence.STEP, (TensorSpec("x", ("n", 4)),), (TensorSpec("y", ("n", 4)),),
                         {"n": DimRange(1, 2, 4)})
    (finding,) = check_module(spec, Other())
    assert finding.wrong == f"forward() gives {kind}, expected a tensor or a tuple of tensors"
    assert "the tensor itself of a dict" in finding.mend
