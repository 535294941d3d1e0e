"""Which techniques act on each bundled family, by the blocks that are evaluated, and which refuse it."""

import numpy as np
import pytest
from torch import nn

from engines.backends.torch_backend import TorchEngine
from engines.errors import UsageError
from generators.contract import load_generator
from pipeline.caches.calibration import save_calibration
from pipeline.caches.network_hooks import find_transformer
from pipeline.caches.technique import TechniqueError
from pipeline.recipe import BASELINE, RecipeError
from pipeline.sampler import Sampler
from tests import tiny_mimicmotion, tiny_refnet
from tests.techniques import ALL, ANY_ENGINE, CALIBRATION, INSIDE, STEPS, Small, make_small, recipe_of
from tests.wan_checkpoints import write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
THROUGH_FORWARD = ["seacache", "fastercache", "cache-dit"]
IN_BLOCKS = [name for name in INSIDE if name not in THROUGH_FORWARD]
WAN = ["wan-fun-control", "wan-unianimate", "wan-animate"]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A function: the generator of a tiny Wan checkpoint, with a calibration of it."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            write_checkpoint(folder, name, steps=STEPS, guidance=2.0, sampler="flow")
            made[name] = load_generator(f"{name}={folder}")
            save_calibration(CALIBRATION, made[name], ["a"])
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVACE_BUILT", str(tmp_path_factory.mktemp("built")))
        yield get


def sampled(generator, recipe):
    """The latents of one window by a recipe, and how often the second block's attention was evaluated."""
    adapted, calls = recipe.adapt(generator), []
    module = adapted.build("denoise")
    find_transformer(module).blocks[1].attn1.to_q.register_forward_hook(lambda *_: calls.append(1))
    spec, random = adapted.components["denoise"], np.random.default_rng(0)
    constants = {
        each.name: random.standard_normal(each.dims, np.float32) for each in spec.inputs
        if each.name not in ("latents", "time", "branch")}
    sampler = Sampler(adapted, {"denoise": TorchEngine(spec, module)}, None, recipe.open_denoiser)
    return sampler.sample(constants, adapted.windows.frames, 1).latents, len(calls)


@pytest.mark.parametrize("name", ["wan-fun-control", "wan-unianimate"])
def test_a_wan_model_is_evaluated_less_by_each_technique_that_takes_it(families, name):
    base, calls = sampled(families(name), BASELINE)
    assert calls == 2 * STEPS
    for technique in (*ANY_ENGINE, *IN_BLOCKS):
        gentle, calls = sampled(families(name), recipe_of(technique, ALL[technique][0]))
        assert calls == 2 * STEPS, technique
        np.testing.assert_array_equal(gentle, base, technique)
        made, calls = sampled(families(name), recipe_of(technique, ALL[technique][1]))
        assert 0 < calls < 2 * STEPS, technique
        assert np.isfinite(made).all() and np.abs(made - base).max() > 1e-4, technique


@pytest.mark.parametrize("name", WAN)
@pytest.mark.parametrize("technique", THROUGH_FORWARD)
def test_a_technique_that_would_change_nothing_in_a_wan_model_is_refused(families, name, technique):
    """seacache gave the base model's frames; fastercache failed at the first step, of shapes."""
    why = (f"{technique} hooks into the forward of a WanTransformer3DModel, and the denoiser of {name} "
           "runs the blocks without it, so it would change nothing; first-block-cache hooks into blocks")
    if technique == "fastercache":
        why = f"fastercache evaluates both branches of {name} in one batch, and denoise has no batch of 1"
    with pytest.raises(RecipeError) as caught:
        recipe_of(technique, ALL[technique][1]).adapt(families(name))
    assert str(caught.value).startswith(f"recipe cached: technique.name: {why}")


@pytest.mark.parametrize("kind", ["wan-animate", "mimicmotion", "refnet"])
def test_other_networks_are_refused_by_all_that_hook_into_one(families, kind, tmp_path):
    make = {"mimicmotion": tiny_mimicmotion.write_tiny, "refnet": tiny_refnet.write_tiny}
    generator = make[kind](tmp_path, steps=STEPS) if kind in make else families(kind)
    save_calibration(CALIBRATION, generator, ["a"])
    module = generator.build("denoise")
    generator.build = lambda component: module
    for technique in INSIDE:
        with pytest.raises(UsageError, match="no WanTransformer3DModel|3DModel, and|fastercache"):
            recipe_of(technique).adapt(generator).build("denoise")
    del generator.build


class Inlined(nn.Module):
    """Runs a network by its class's code, past what hooks put in the place of its forward."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, *args, **named):
        return type(self.network).forward(self.network, *args, **named)


class Inlining(Small):
    """A wrapper whose denoiser never calls its network's forward."""

    def build(self, component):
        module = super().build(component)
        if component == "denoise":
            network = find_transformer(module)
            for name, part in list(module.named_children()):
                if part is network:
                    setattr(module, name, Inlined(network))
        return module


@pytest.mark.parametrize("technique", ["seacache", "fastercache"])
def test_a_wrapper_that_runs_the_blocks_itself_is_refused_at_the_first_step(technique, tmp_path):
    make_small(tmp_path)
    recipe = recipe_of(technique, ALL[technique][1])
    adapted = recipe.adapt(Inlining(tmp_path))
    spec, module = adapted.components["denoise"], adapted.build("denoise")
    shapes = {"pose": (1, 16, 16, 6, 4), "reference": (1, 16, 6, 4)}
    constants = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    sampler = Sampler(adapted, {"denoise": TorchEngine(spec, module)}, None, recipe.open_denoiser)
    with pytest.raises(TechniqueError, match=f"name: {technique} hooks into the forward .* small runs the"):
        sampler.sample(constants, 16, 1)


def test_what_leaves_out_the_unconditional_branch_is_refused_where_there_is_none(families, tmp_path):
    write_checkpoint(tmp_path, "wan-fun-control", steps=STEPS, guidance=1.0)
    generator = load_generator(f"wan-fun-control={tmp_path}")
    for technique in ("guidance-interval", "fastercache"):
        with pytest.raises(RecipeError, match="the unconditional branch, which guidance 1 does not have"):
            recipe_of(technique).adapt(generator)
