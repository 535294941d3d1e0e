"""Steps as graphs on a device that is none: the bytes of the usual way, what is recorded, what never is."""

import numpy as np
import pytest

from engines.backends.torch_backend import TorchEngine
from engines.deferred_arrays import DeferringPlace
from engines.deferred_engines import defer_steps
from engines.spec import Cadence, ComponentSpec, TensorSpec
from generators.diffusion_grids import DdimScheduler, DpmSolverMultistep, EulerScheduler
from generators.samplers import FlowMatchEuler, KarrasEuler, UniPcMultistep
from lab.gpu.fake_arrays import FakeArray, FakePlace
from pipeline.recipe import RecipeError, parse_recipe
from pipeline.runner import Settings, start_runner
from pipeline.sampler import denoise_loop
from pipeline.step_plan import StepPlan
from tests.fake_device import CountedEngine, DriverPlace
from tests.fake_tensorrt import VideoRunner

SHAPE = (1, 2, 6, 4, 4)


class Bend:
    """A clip's denoiser that computes with arrays alone, and asks for time on the host."""

    def __init__(self, scheduler, guidance=1.5):
        self._scheduler, self.guidance = scheduler, guidance

    def __call__(self, latents, step, action):
        if action == "S":
            return ()
        sums, time = np.zeros_like(latents), np.float32(self._scheduler.times[step] / 1000)
        sums[:, :, :4] += np.tanh(latents[:, :, :4]) * time
        sums[:, :, 2:] += latents[:, :, 2:] - time
        return (sums, sums * np.float32(0.5))[: 2 if action == "F" else 1]


def sampled(scheduler, plan, place=None, guidance=1.5):
    noise = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    draw = lambda step: np.full(SHAPE, step / 10, np.float32)  # noqa: E731
    if place:
        given, draws = place.asarray(noise), draw
        draw = lambda step: place.asarray(draws(step))  # noqa: E731
        *_, state = denoise_loop(Bend(scheduler, guidance), scheduler, given, plan, 2, draw)
        return state.latents.get()
    *_, state = denoise_loop(Bend(scheduler, guidance), scheduler, noise, plan, 2, draw)
    return state.latents


@pytest.mark.parametrize("scheduler", [
    FlowMatchEuler(20, 3.0), FlowMatchEuler(20, 3.0, half=True), KarrasEuler(20), UniPcMultistep(20, 3.0),
    DdimScheduler(20), DdimScheduler(20, eta=0.5), DpmSolverMultistep(20), EulerScheduler(20, eta=1.0)])
@pytest.mark.parametrize("actions", ["F", "FC", "FSC"])
def test_every_solver_gives_the_bytes_of_the_host_and_steps_are_launched(scheduler, actions):
    plan, fake = StepPlan((actions * 20)[:20]), FakePlace()
    said = []
    place = DeferringPlace(fake, said.append)
    expected = sampled(scheduler, plan)
    for clip in (1, 2):
        fake.launches = 0
        assert sampled(scheduler, plan, place).tobytes() == expected.tobytes()
        kinds = len(set(actions) - {"S"})
        evaluated = 20 - plan.actions.count("S")
        # of each action two before, a first and a last of multistep solvers, what the first clip finds out
        assert fake.launches >= evaluated - 2 * kinds - (8 if clip == 1 else 4)
    assert not said and fake.down["flags"] == 2 * evaluated


def test_corrections_of_a_plan_are_numbers_that_change_from_step_to_step():
    rows = tuple((0.01 * n, 0.2, -0.1, 0.05) for n in range(20))
    levels = tuple((0.1, 0.2, 0.3, 0.1 * n, 0.1, 0.2) for n in range(20))
    plan, fake = StepPlan("FS" * 20, rows, levels), FakePlace()
    place = DeferringPlace(fake, print)
    for scheduler in (FlowMatchEuler(40, 3.0), UniPcMultistep(40)):  # which asks if latents were corrected
        assert sampled(scheduler, plan, place).tobytes() == sampled(scheduler, plan).tobytes()
    assert fake.launches > 25


def repeated(work, times=6, fake=None):
    """What work(place, number) returns, call after call as steps; the place's launches."""
    fake, said = fake or FakePlace(), []
    place = DeferringPlace(fake, said.append)
    found = []
    for number in range(times):
        found.append(work(place, number))
        place.queue()
    return [each.get() if hasattr(each, "get") else each for each in found], fake.launches, said


def test_what_a_graph_made_stays_when_it_is_launched_again():
    found, launches, _ = repeated(lambda place, n: place.asarray(np.full(3, n, np.float32)) * np.float32(n))
    assert [each.tolist() for each in found] == [[n * n] * 3 for n in range(6)] and launches == 3


def test_what_the_host_reads_divides_a_step_and_is_never_recorded():
    def work(place, n):
        twice = place.asarray(np.full(3, n, np.float32)) + np.float32(n)
        read = float(twice.mean().get())
        return twice * np.float32(read)
    found, launches, said = repeated(work)
    assert [each[0] for each in found] == [4 * n * n for n in range(6)] and launches == 3 and not said


def test_a_step_that_writes_into_what_was_there_is_done_call_by_call():
    kept = []

    def work(place, n):
        if not kept:
            kept.append(place.asarray(np.zeros(3, np.float32)))
        kept[0][1:] += np.float32(n)
        return kept[0] * np.float32(1)
    found, launches, said = repeated(work)
    assert [each[1] for each in found] == [0, 1, 3, 6, 10, 15] and not launches and not said


def test_a_view_that_is_used_later_is_no_graphs_memory():
    def work(place, n):
        return (place.asarray(np.arange(4, dtype=np.float32)) + np.float32(n)).reshape(2, 2)
    found, launches, _ = repeated(work)
    assert [each[1, 1] for each in found] == [3 + n for n in range(6)] and not launches


def test_shapes_that_alternate_have_a_graph_each():
    def work(place, n):
        return place.asarray(np.ones(2 + n % 2, np.float32)) * np.float32(n)
    found, launches, _ = repeated(work, 12)
    assert [each.sum() for each in found] == [n * (2 + n % 2) for n in range(12)] and launches == 6


def test_arrays_that_move_are_found_again():
    lying = [np.full(4, 1, np.float32), np.full(4, 5, np.float32)]
    held = {}

    def work(place, n):
        which = int(n > 5)  # the same place for six steps, then another
        if which not in held:
            held[which] = place.asarray(lying[which])
        return held[which] + np.float32(n)
    found, launches, said = repeated(work, 12)
    assert [each[0] for each in found] == [(1, 5)[n > 5] + n for n in range(12)]
    assert launches == 3 + 4 and not said  # each two before; what came of shapes was known by the second time


@pytest.mark.parametrize("error", [RuntimeError("not permitted"), MemoryError("no memory")])
def test_what_cannot_be_recorded_is_said_once_and_done_as_before(error):
    class Full(FakePlace):
        def graph(self):
            raise error
    found, launches, said = repeated(lambda place, n: place.asarray(np.ones(3, np.float32)) * np.float32(n),
                                     fake=Full())
    assert [each[0] for each in found] == list(range(6)) and not launches
    assert said == [f"step_graph: a step is done call by call, for it cannot be recorded ({error})"]


FLOW = ComponentSpec("denoise", Cadence.STEP, (TensorSpec("latents", SHAPE), TensorSpec("time", (1,))),
                     (TensorSpec("flow", SHAPE),))


def flow(latents, time):
    return {"flow": np.tanh(latents) * time}


class Asking(Bend):
    """A clip's denoiser that asks an engine for both branches."""

    engine = None

    def __call__(self, latents, step, action):
        times = self._scheduler.times[step : step + 1], -self._scheduler.times[step : step + 1]
        return tuple(self.engine(latents=latents * np.float32(1), time=time)["flow"] for time in times)


def asked(engine, noise, steps=10):
    scheduler = FlowMatchEuler(steps, 3.0)
    clip = Asking(scheduler)
    clip.engine = engine
    *_, state = denoise_loop(clip, scheduler, noise, StepPlan("F" * steps))
    return state.latents


@pytest.fixture
def tensorrt(tmp_path):
    """A TensorRT engine of `flow` on a fake GPU, with its place."""
    engine = VideoRunner(tmp_path)(spec=FLOW, function=flow)
    engine.place = DriverPlace(engine.driver, engine.context)
    return engine


NOISE = np.random.default_rng(2).standard_normal(SHAPE, np.float32)


def test_tensorrts_runs_of_a_step_are_part_of_its_graph(tensorrt):
    engines, place = defer_steps({"denoise": tensorrt}, tensorrt.place, print)
    expected = asked(lambda **given: flow(**given), NOISE)
    calls = tensorrt.driver.faults.calls
    for _ in range(2):
        assert asked(engines["denoise"], place.asarray(NOISE)).get().tobytes() == expected.tobytes()
    before, latents = len(calls), asked(engines["denoise"], place.asarray(NOISE))
    assert latents.get().tobytes() == expected.tobytes()
    assert [call for call in calls[before:] if call not in ("synchronize", "copy_in")] == ["launch"] * 10
    assert calls.count("begin_capture") == 1 + 1  # the engine's own, for the plain steps, and the steps'


def test_a_graph_is_recorded_anew_where_another_engine_moved_the_memory(tensorrt):
    engines, place = defer_steps({"denoise": tensorrt}, tensorrt.place, print)
    scheduler = FlowMatchEuler(12, 3.0)
    clip, expected = Asking(scheduler), asked(lambda **given: flow(**given), NOISE, 12)
    clip.engine = engines["denoise"]
    for state in denoise_loop(clip, scheduler, place.asarray(NOISE), StepPlan("F" * 12)):
        if state.step == 7:
            with tensorrt.context as context:
                context.reserve(1 << 20, 1 << 20)
    assert state.latents.get().tobytes() == expected.tobytes()
    assert tensorrt.driver.faults.calls.count("begin_capture") == 1 + 1 + 2  # its own, and the steps'


def test_engines_that_cannot_be_recorded_stay_as_they_are():
    said, engine = [], CountedEngine.__new__(CountedEngine)
    engine.spec, engine.capturable = FLOW, False
    engines, place = {"denoise": engine}, FakePlace()
    assert defer_steps(engines, place, said.append) == (engines, place)
    assert defer_steps(engines, None, said.append) == (engines, None)
    assert "its engine cannot be recorded" in said[0] and "not sampled on a device" in said[1]


def test_a_deferred_array_refuses_what_cupys_refuse():
    place = DeferringPlace(FakePlace(), print)
    array = place.asarray(np.ones((2, 3), np.float32))
    for mixed in (lambda: array + np.ones(3), lambda: np.asarray(array), lambda: np.add.reduce(array),
                  lambda: np.concatenate([array, np.ones((1, 3))])):
        with pytest.raises(TypeError):
            mixed()
    assert isinstance((array + 1).now(), FakeArray) and len(array) == 2 and array.nbytes == 24


def test_recipes_ask_for_it_and_a_processor_says_that_it_has_none(tiny_file):
    recipe = parse_recipe("step_graph = true", "graphs")
    assert parse_recipe(recipe.to_toml(), "graphs") == recipe and recipe.settings() == {"step_graph": True}
    with pytest.raises(RecipeError, match="step_graph: must be true or false, is 1"):
        parse_recipe("step_graph = 1", "graphs")
    said = []
    runner = start_runner(Settings(f"{tiny_file}:Tiny", recipe), said.append)
    assert "step_graph: steps are done call by call, for arrays are not sampled on a device" in said[-1]
    assert isinstance(runner.engines["denoise"], TorchEngine)
