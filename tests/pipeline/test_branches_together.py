"""Guidance's branches as one batch: what the engine is asked, that frames stay, and where it cannot be."""

from types import SimpleNamespace

import numpy as np
import pytest

from engines.deferred_engines import defer_steps
from engines.errors import UsageError
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from generators.contract import load_generator
from lab.gpu.fake_arrays import FakePlace
from pipeline.branches_together import TogetherDenoiser, why_not_together
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import Recipe, RecipeError
from pipeline.sampler import Sampler
from pipeline.step_plan import StepPlan
from tests.fake_device import counted_engines
from tests.tiny_mimicmotion import write_tiny
from tests.wan_checkpoints import write_checkpoint

TOGETHER = Recipe("two", branches="together")


def latents(generator, engines, recipe, frames, plan=None):
    adapted = recipe.adapt(generator)
    width, height = adapted.size
    random = np.random.default_rng(3)
    skeletons, image = (random.integers(0, 256, (n, height, width, 3), np.uint8) for n in (frames, 1))
    chunks = np.split(skeletons, range(adapted.chunk, frames, adapted.chunk))
    constants = adapted.condition(engines, chunks, image)
    return Sampler(adapted, engines, plan, recipe.open_denoiser).sample(constants, frames, 5).latents


@pytest.mark.parametrize(("name", "tolerance"), [("presenter", 2e-5), ("mimicmotion", 2**-10)])
def test_one_call_a_window_gives_the_latents_of_two(name, tolerance, tiny, tmp_path):
    """Relative to the largest number; MimicMotion rounds latents to halves at each step, which may differ."""
    generator = tiny if name == "presenter" else write_tiny(tmp_path)
    engines, plan = counted_engines(generator, None), StepPlan("FC" + "F" * (generator.scheduler.steps - 2))
    denoise, sizes = engines["denoise"], []
    engines["denoise"] = lambda **given: sizes.append(len(given["latents"])) or denoise(**given)
    frames = 20 if name == "presenter" else 7
    apart = latents(generator, engines, Recipe("one"), frames, plan)
    assert set(sizes) == {1}
    count, sizes[:] = len(sizes), []
    together = latents(generator, engines, TOGETHER, frames, plan)
    assert set(sizes) == {1, 2} and sum(sizes) == count  # of one at C
    assert np.abs(together - apart).max() <= tolerance * np.abs(apart).max()


def test_on_a_device_the_bytes_are_those_of_the_host(tiny):
    engines, found = counted_engines(tiny, None), []
    for place in (None, FakePlace()):
        for engine in engines.values():
            engine.place = place
        found.append(latents(tiny, engines, TOGETHER, 20))
    deferred, _ = defer_steps(engines, place, pytest.fail)
    found.append(latents(tiny, deferred, TOGETHER, 20))
    assert all(each.get().tobytes() == found[0].tobytes() for each in found[1:])


BATCH = ("b", 2, 4)
SPEC = ComponentSpec("denoise", Cadence.STEP, (TensorSpec("latents", BATCH), TensorSpec("pose", (1, 2, 4))),
                     (TensorSpec("flow", BATCH),), {"b": DimRange(1, 1, 2)})


class Denoises:
    """Of a generator, what evaluates a branch; keep: whether the other one sees the pose."""

    name, guidance, components, frame_axis, per_frame = "small", 2.0, {"denoise": SPEC}, 2, frozenset()
    windows = SimpleNamespace(seen=lambda indices: indices)

    def __init__(self, keep):
        self._keep = keep

    def denoise(self, engine, latents, step, constants, conditional):
        pose = constants["pose"] if conditional or self._keep else constants["pose"] * 0
        return engine(latents=latents + np.float32(conditional), pose=pose)["flow"]


def evaluate(keep, engine, kind=Denoises):
    clip = {"pose": np.full((1, 2, 4), 3, np.float32)}
    opened = TogetherDenoiser(kind(keep), {"denoise": engine}, clip, np.arange(4))
    return opened.predict(np.zeros((1, 2, 4), np.float32), 0, clip, (True, False))


def test_inputs_without_the_batch_are_given_once_and_each_branch_gets_its_own():
    given = {}

    def engine(latents, pose):
        given.update(latents=latents, pose=pose)
        return {"flow": latents * pose}
    assert [found.max() for found in evaluate(True, engine)] == [3, 0]
    assert given["latents"].shape == (2, 2, 4) and given["pose"].shape == (1, 2, 4)
    with pytest.raises(UsageError, match="small gives each its own pose, which has no dim b; leave it out"):
        evaluate(False, engine)


def test_equal_numbers_of_each_branch_are_given_once():
    """A wrapper makes the time anew for each branch."""
    class Copies(Denoises):
        def denoise(self, engine, latents, step, constants, conditional):
            return super().denoise(engine, latents, step, {"pose": constants["pose"].copy()}, conditional)

    def engine(latents, pose):
        assert pose.shape == (1, 2, 4)
        return {"flow": latents * pose}
    assert [found.max() for found in evaluate(True, engine, Copies)] == [3, 0]


def test_where_memory_ends_branches_are_evaluated_apart_from_then_on():
    sizes = []

    def engine(latents, pose):
        sizes.append(len(latents))
        if len(latents) > 1:
            raise MemoryError
        return {"flow": latents * pose}
    assert [found.max() for found in evaluate(True, engine)] == [3, 0]
    assert sizes == [2, 1, 1]


def test_recipes_say_where_it_cannot_be(tmp_path, tiny):
    assert TOGETHER.settings() == {"branches": "together"} and why_not_together(tiny) is None
    write_checkpoint(tmp_path, "wan-fun-control")
    with pytest.raises(RecipeError, match="two: branches: denoise has no batch of 1 to 2 .*leave it out"):
        TOGETHER.adapt(load_generator(f"wan-fun-control={tmp_path}"))
    for others in ({"steps": StepPlan("FH")}, {"technique": TechniqueChoice("uniform-skip", {"every": 2})}):
        with pytest.raises(RecipeError, match="branches: with a technique or the action H"):
            Recipe("two", branches="together", **others)
    with pytest.raises(RecipeError, match="branches: unknown way 'both'"):
        Recipe("two", branches="both")
