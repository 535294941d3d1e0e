"""Clips that are sampled on a device: the same bytes as on the host, and nothing crosses but what must."""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.deferred_engines import defer_steps
from engines.device_arrays import constant, place_for, runs, take_frames
from generators.contract import load_generator
from generators.windows import ContinuationWindows
from lab.gpu.fake_arrays import FakeArray, FakePlace
from pipeline.guard import Guard
from pipeline.sampler import Sampler, first_frames, generate
from pipeline.step_plan import StepPlan
from pipeline.streaming import StreamedClip
from tests.fake_device import counted_engines
from tests.tiny_mimicmotion import write_tiny
from tests.tiny_refnet import write_tiny as write_refnet
from tests.wan_checkpoints import write_checkpoint

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WAN = ("wan-fun-control", "wan-unianimate", "wan-animate")
OWN = {"my_generator": f"{EXAMPLES}/my_generator.py:MyGenerator",
       "reference_net": f"{EXAMPLES}/reference_net/wrapper.py:ReferenceNet"}
NAMES = ("presenter", "mimicmotion", "refnet", *WAN, *OWN)
FRAMES = 20


@pytest.fixture(scope="module")
def generators(tmp_path_factory, tiny):
    """A function that gives a generator, and its engines for a place, made once for all tests here."""
    made, folder = {}, tmp_path_factory.mktemp("kinds")

    def get(name):
        if name not in made:
            if name in OWN:
                generator = load_generator(OWN[name])
            elif name == "presenter":
                generator = tiny
            else:
                (folder / name).mkdir()
                if name == "mimicmotion":
                    generator = write_tiny(folder / name, shallow=True)
                elif name == "refnet":
                    generator = write_refnet(folder / name)
                else:
                    tiles = {"tile_height": 4, "tile_width": 2} if name == "wan-unianimate" else {}
                    write_checkpoint(folder / name, name, **tiles)
                    generator = load_generator(f"{name}={folder / name}")
            made[name] = generator, counted_engines(generator, None)
        return made[name]
    return get


@pytest.fixture
def both_ways(generators):
    """A function that makes a clip on the host and on a device: pixels of both, and the place."""
    def make(name, plan=None, make=generate, frames=FRAMES):
        generator, engines = generators(name)
        width, height = generator.size
        random = np.random.default_rng(3)
        skeletons = random.integers(0, 256, (frames, height, width, 3), np.uint8)
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        found, place = [], FakePlace()
        for each in (None, place):
            for engine in engines.values():
                engine.place = each
            found.append(make(generator, engines, skeletons, image, 5, plan))
        return *found, place
    return make


def streamed(generator, engines, skeletons, image, seed, plan):
    chunks = np.split(skeletons, range(generator.chunk, len(skeletons), generator.chunk))
    pieces = generator.condition_pieces(engines, chunks, image[None])
    clip = StreamedClip(Sampler(generator, engines, plan), pieces, len(skeletons), seed)
    decoded = generator.decode_pieces(engines, clip.latents())
    return np.concatenate(list(first_frames(decoded, len(skeletons))))


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_are_the_hosts_and_state_stays_on_the_device(both_ways, generators, name):
    host, device, place = both_ways(name, frames=9 if name in ("mimicmotion", "refnet") else FRAMES)
    assert device.tobytes() == host.tobytes()
    generator, _ = generators(name)
    windows, frames = generator.windows, len(host)
    sampled = windows.latent_frames(frames) if isinstance(windows, ContinuationWindows) else len(
        windows.condition_indices(frames))
    noise = generator.noise(sampled, 5).nbytes
    ramps = 4 * 8 * (2 * 4 + 3 * 2) if name == "wan-unianimate" else 0  # of 2 rows and 3 columns of tiles
    assert noise <= place.up["float32"] <= noise + 4 * 4 * sampled * max(1, windows.count(frames)) + ramps
    blended = (4 * windows.latent_frames(frames) - 3) * host[0].nbytes if ramps else 0  # as pixels
    assert place.down["floats"] == 0 and place.down["others"] == blended
    calls = generator.scheduler.steps * windows.count(frames) * 2
    assert 0 < place.up["to denoise"] <= 20 * calls  # time and branch, two times where both are one call
    assert {name.removeprefix("to ") for name in place.up} <= {"float32", *generator.components}


def test_what_crosses_is_noise_pixels_and_a_flag_a_step(both_ways, generators):
    host, _, place = both_ways("presenter")
    generator, _ = generators("presenter")
    steps, windows = generator.scheduler.steps, generator.windows.count(FRAMES)
    picture = 3 * 32 * 48
    assert place.down == Counter(pixels=host.nbytes, flags=steps)
    assert place.up["to encode"] == (FRAMES + 1) * picture
    assert place.up["to denoise"] == steps * windows * 2 * (4 + 4)  # time and branch
    assert "to decode" not in place.up


@pytest.mark.parametrize(("name", "actions"), [("presenter", "FS"), ("my_generator", "FCS"),
                                               ("mimicmotion", "FC"), ("wan-fun-control", "FSC")])
def test_plans_give_the_same_bytes(both_ways, generators, name, actions):
    generator, _ = generators(name)
    plan = StepPlan((actions * 50)[: generator.scheduler.steps])
    host, device, place = both_ways(name, plan, frames=9)
    assert device.tobytes() == host.tobytes() and place.down["floats"] == 0


def test_corrections_and_their_levels_give_the_same_bytes(both_ways, generators):
    generator, _ = generators("my_generator")
    zeros = (0.0,) * 4
    plan = StepPlan("FSFF", ((0.01, 0.2, -0.1, 0.0), zeros, zeros),
                    ((0.1, 0.2, 0.3, 0.1, 0.1, 0.2, 0.3, 0.4), zeros * 2, zeros * 2), overlaps=(8, 4))
    host, device, place = both_ways("my_generator", plan)
    assert device.tobytes() == host.tobytes() and place.down["floats"] == 0


def test_deep_features_stay_on_the_device(both_ways, generators):
    host, device, place = both_ways("mimicmotion", StepPlan("FHH"), frames=9)
    assert device.tobytes() == host.tobytes() and place.down["floats"] == 0


@pytest.mark.parametrize("name", ["presenter", "my_generator", "wan-animate"])
@pytest.mark.parametrize("limit", [1e-9, 1e9])
def test_the_guard_decides_alike(both_ways, generators, name, limit):
    generator, _ = generators(name)
    steps = generator.scheduler.steps
    actions = "F" * steps if steps < 3 else "FS" + "F" * (steps - 2)
    guard = Guard(5, (0.0, *[limit] * (len(actions.replace("S", "")) - 1)))
    plan = StepPlan(actions, guard=guard)
    host, device, place = both_ways(name, plan)
    assert device.tobytes() == host.tobytes()
    assert 0 < place.down["floats"] < 5000  # a number a frame, to compare


@pytest.mark.parametrize("name", ["presenter", "wan-fun-control", "wan-unianimate"])
def test_streamed_clips_give_the_same_bytes(both_ways, name):
    host, device, place = both_ways(name, make=streamed, frames=30)
    assert device.tobytes() == host.tobytes() and place.down["floats"] == 0


@pytest.mark.parametrize(("name", "actions"), [
    ("presenter", "F"), ("my_generator", "FFS"), ("mimicmotion", "F"), ("wan-fun-control", "FC"),
    ("reference_net", "F")])
def test_steps_that_are_graphs_give_the_same_bytes(generators, name, actions):
    generator, engines = generators(name)
    longer = copy.copy(generator)
    longer.scheduler = replace(generator.scheduler, steps=15)  # more: addresses may be equal by chance
    place, said, found = FakePlace(), [], []
    width, height = generator.size
    frames = np.random.default_rng(3).integers(0, 256, (2, height, width, 3), np.uint8)
    for each in (None, place):
        for engine in engines.values():
            engine.place = each
        chosen = defer_steps(engines, each, said.append)[0] if each else engines
        constants = generator.condition(chosen, [frames], frames[:1])
        if name == "mimicmotion":  # its three steps are a size of its components
            constants["embedding"] = np.concatenate([constants["embedding"]] * 5)
        found.append(Sampler(longer, chosen, StepPlan((actions * 15)[:15])).sample(constants, 2, 5).latents)
    assert found[1].get().tobytes() == found[0].tobytes() and not said
    assert place.launches >= 2


@pytest.mark.parametrize("make", [generate, streamed])
def test_guards_and_streams_go_with_steps_that_are_graphs(generators, make):
    generator, engines = generators("presenter")
    steps, width, height = generator.scheduler.steps, *generator.size
    plan = StepPlan("F" * steps, guard=Guard(5, (0.0, *[1e9] * (steps - 1))))
    frames = np.random.default_rng(3).integers(0, 256, (FRAMES, height, width, 3), np.uint8)
    found, place = [], FakePlace()
    for each in (None, place):
        for engine in engines.values():
            engine.place = each
        chosen = defer_steps(engines, each, pytest.fail)[0] if each else engines
        found.append(make(generator, chosen, frames, frames[0], 5, plan))
    assert found[1].tobytes() == found[0].tobytes()


def test_numbers_that_are_not_finite_are_an_error_that_names_their_step(generators, both_ways, monkeypatch):
    generator, engines = generators("my_generator")
    run, calls = type(engines["denoise"]).__call__, []

    def broken(self, **arrays):
        found = run(self, **arrays)
        if self.spec.name == "denoise":
            calls.append(1)
            if len(calls) % (2 * 2 * 4) == 5:  # windows, branches, steps
                found["flow"][:] = np.nan
        return found
    monkeypatch.setattr(type(engines["denoise"]), "__call__", broken)
    place = FakePlace()
    for engine in engines.values():
        engine.place = place
    skeletons = np.zeros((FRAMES, 96, 64, 3), np.uint8)
    with pytest.raises(FloatingPointError, match="step 2 of 4"):
        generate(generator, engines, skeletons, skeletons[0], 5)


def test_a_device_refuses_what_cupy_refuses():
    place = FakePlace()
    array = place.asarray(np.ones((2, 3), np.float32))
    for mixed in (lambda: array + np.ones(3), lambda: np.concatenate([array, np.ones((1, 3))]),
                  lambda: np.asarray(array), lambda: np.ascontiguousarray(array)):
        with pytest.raises(TypeError):
            mixed()
    assert (np.float32(2) * array).get().sum() == 12 and isinstance(np.float32(2) * array, FakeArray)


def test_a_small_constant_is_sent_once():
    place = FakePlace()
    like = place.asarray(np.ones(3, np.float32))
    sent = place.up.total()
    for _ in range(3):
        assert constant(np.arange(3), like).get().tolist() == [0, 1, 2]
    assert place.up.total() == sent + 24
    assert constant(np.arange(3), np.ones(3)).tolist() == [0, 1, 2]


def test_frames_are_taken_by_runs():
    array = np.arange(40).reshape(2, 20)
    for indices in ([3, 4, 5], [0, 7, 8, 2], [19, 19, 19], [5]):
        found = take_frames(FakePlace().asarray(array), np.array(indices), 1)
        assert found.get().tolist() == array.take(indices, 1).tolist()
    assert runs(np.array([0, 7, 8, 2])) == [slice(0, 1), slice(7, 9), slice(2, 3)]


def test_without_a_gpu_or_cupy_arrays_pass_through_the_host(generators, monkeypatch):
    _, engines = generators("presenter")
    said = []
    assert place_for(engines, "cpu", said.append) is None and not said
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    assert place_for(engines, "cuda", said.append) is None
    assert "CuPy does not run" in said[0] and 'pip install "cupy-cuda13x[ctk]"' in said[0]
    assert place_for({"a": object()}, "cuda", said.append) is None and len(said) == 1
