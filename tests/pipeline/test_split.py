"""One video split over processes: the same bytes, also when a process is lost; nothing hangs or stays."""

import itertools
import multiprocessing
import os
import re
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest

from engines.errors import EngineError
from lab.null_engine import NullEngine
from pipeline.parallel.window_parallel import WindowWorkers
from pipeline.parallel.window_parallel_runner import StartDenoiser
from pipeline.recipe import BASELINE
from pipeline.runner import Settings
from pipeline.sampler import Sampler
from pipeline.step_plan import StepPlan
from tests.conftest import Plain

FRAMES = 40  # three windows


@pytest.fixture(scope="module")
def opening(tiny_file, tiny_built):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVACE_BUILT", str(tiny_built))
        yield StartDenoiser(Settings(f"{tiny_file}:Tiny", replace(BASELINE, backend="onnxruntime")))


@pytest.fixture
def split(opening):
    """A function that starts several processes: the generator, an engine with them, what they have said."""
    made = []

    def make(count, how=opening, **options):
        said = []
        made.append(WindowWorkers([how] * (count - 1), said.append, **options))
        return (*opening(), made[-1].open, said)

    yield make
    for workers in made:
        workers.close()
    assert multiprocessing.active_children() == []


def latents(generator, engine, open_denoiser=None, frames=FRAMES, plan=None):
    rng = np.random.default_rng(0)
    pose = rng.standard_normal((1, 16, frames, 6, 4), np.float32)
    reference = rng.standard_normal((1, 16, 6, 4), np.float32)
    sampler = Sampler(generator, {"denoise": engine}, plan, open_denoiser)
    return sampler.sample({"pose": pose, "reference": reference}, frames, 1).latents


@pytest.fixture(scope="module")
def unsplit(opening):
    """The bytes of one process."""
    return latents(*opening()).tobytes()


def test_a_video_split_over_processes_has_the_bytes_of_one(split, unsplit):
    *model, said = split(3)
    assert latents(*model).tobytes() == unsplit
    assert latents(*model).tobytes() == unsplit  # a second clip finds no trace of the first
    assert said == []


@pytest.mark.parametrize("actions", ["FC", "FS"])
@pytest.mark.parametrize("frames", [7, 17])
def test_step_plans_and_short_clips_are_split_alike(split, opening, actions, frames):
    *model, _ = split(2)
    plan = StepPlan(actions)
    alone = latents(*opening(), None, frames, plan)
    assert latents(*model, frames, plan).tobytes() == alone.tobytes()


def test_each_process_evaluates_its_share(tiny, opening):
    first = NullEngine(tiny.components["denoise"])
    workers = WindowWorkers([opening] * 2, print)
    latents(tiny, first, workers.open)
    assert first.calls == 2 * 2 * 3 // 3  # steps, branches, windows; processes
    workers.close()


@pytest.mark.parametrize(("count", "kind", "seconds", "how"), [
    (3, signal.SIGKILL, 600.0, "ended by SIGKILL"), (2, signal.SIGSTOP, 1.0, "did not answer for 1 s")])
def test_a_process_that_dies_or_stops_costs_time_but_no_byte(split, unsplit, count, kind, seconds, how):
    *model, said = split(count, stall_seconds=seconds)
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, kind)
    assert latents(*model).tobytes() == unsplit
    assert [re.sub("worker [23]", "worker", text) for text in said] == [
        f"split worker {how}; its share is evaluated in this process from now on"]
    assert len(multiprocessing.active_children()) == count - 2
    assert latents(*model).tobytes() == unsplit and len(said) == 1  # the next clip, by the rest


def test_a_process_that_cannot_start_is_refused_with_its_reason_and_none_stays(split, opening):
    recipe = replace(opening.settings.recipe, precision="bf16,denoise=int8")
    nowhere = replace(opening, settings=replace(opening.settings, recipe=recipe))
    with pytest.raises(EngineError, match="split worker 2: .*export_onnx.py"):
        split(3, nowhere)
    assert multiprocessing.active_children() == []


def test_a_process_that_ends_as_it_starts_is_an_error(split):
    with pytest.raises(EngineError, match="split worker 2 ended with 3 while it started"):
        split(2, EndAtOnce())


def test_a_process_that_cannot_start_for_lack_of_memory_says_so(split):
    with pytest.raises(MemoryError, match="split worker 2: the GPU has 3 GB"):
        split(2, OutOfMemory())


def test_a_process_out_of_memory_rests_for_the_video_and_costs_no_byte(split, opening, unsplit):
    *model, said = split(2, Starved(opening, good=3))
    assert latents(*model).tobytes() == unsplit
    assert said == ["split worker 2 is out of memory (no room for 8 GB); it rests for this video"]
    assert latents(*model).tobytes() == unsplit and len(said) == 1  # the next one finds it at work again
    assert len(multiprocessing.active_children()) == 1


@pytest.mark.parametrize("actions", ["FFF", "FCF"])
def test_branches_that_go_together_stay_together_in_a_process(actions):
    generator = Together()
    places = np.arange(FRAMES, dtype=np.float32)[None, :, None, None]
    constants, plan, found = {"pose": np.tile(places, (1, 1, 12, 8))}, StepPlan(actions), []
    workers = WindowWorkers([Together.start] * 2, print)
    for open_denoiser in (None, workers.open):
        sampler = Sampler(generator, {"denoise": None}, plan, open_denoiser)
        found.append(sampler.sample(constants, FRAMES, 1).latents.tobytes())
    workers.close()
    assert found[0] == found[1]
    assert set(generator.calls) <= {(True, False), (True,)}
    assert len(generator.calls) == 3 * 3 + 3  # windows and steps, then a share of one window a step


class Together(Plain):
    """The generator in NumPy alone, with a prediction of all branches at once."""

    denoise = None

    @classmethod
    def start(cls):
        return cls(), None

    def denoise_branches(self, engine, latents, step, constants, branches):
        self.calls.append(tuple(branches))
        return np.concatenate([np.sin(latents) - constants["pose"] * branch for branch in branches])


class EndAtOnce:
    def __call__(self):
        raise SystemExit(3)


class OutOfMemory:
    def __call__(self):
        raise MemoryError("the GPU has 3 GB")


@dataclass
class Starved:
    """Opens an engine that is out of memory once, after so many good calls."""

    opening: StartDenoiser
    good: int

    def __call__(self):
        generator, engine = self.opening()
        calls = itertools.count()

        def run(**inputs):
            if next(calls) == self.good:
                raise MemoryError("no room for 8 GB")
            return engine(**inputs)

        return generator, run
