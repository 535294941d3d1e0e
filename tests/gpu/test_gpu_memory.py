"""The GPU's memory: drivers take and give it, graphs move what is in it now, and its end is a MemoryError."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.gpu.device import DRIVERS, open_driver
from engines.gpu.lane import Lane, Slot
from engines.spec import Cadence, ComponentSpec, EngineError, TensorSpec
from engines.torch_engine import TorchEngine

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
TOO_MUCH = 1 << 45  # bytes, more than any GPU has
SPEC = ComponentSpec("grow", Cadence.STEP, (TensorSpec("x", (1,)),), (TensorSpec("y", (1,)),))


@pytest.fixture(params=DRIVERS)
def lane(request):
    """A lane through each package that is installed."""
    try:
        driver = open_driver("cuda", request.param)
    except EngineError as refusal:
        pytest.skip(" ".join(str(refusal).split())[:300])
    lane = Lane(driver)
    lane.open()
    yield lane
    lane.close()


def slot_of(lane, size):
    slot = Slot(lane.driver)
    slot.fit((size,), "float32")
    return slot


def test_what_goes_in_comes_out(lane):
    with lane:
        slot = slot_of(lane, 1000)
        slot.array[:] = np.arange(1000)
        slot.copy_in(lane.stream)
        lane.driver.synchronize(lane.stream)
        slot.array[:] = 0
        slot.copy_out(lane.stream)
        lane.driver.synchronize(lane.stream)
        np.testing.assert_array_equal(slot.array, np.arange(1000))
        slot.free()


def test_a_graph_moves_what_memory_holds_when_it_is_launched_and_is_captured_anew_for_another_size(lane):
    with lane:
        slot = slot_of(lane, 256)
        for size in (256, 1 << 20):
            lane.driver.synchronize(lane.stream)
            slot.fit((size,), "float32")
            slot.array[:] = 1
            slot.copy_in(lane.stream)  # plain first, as before every capture
            lane.driver.begin_capture(lane.stream)
            slot.copy_in(lane.stream)
            graph = lane.driver.end_capture(lane.stream)
            assert graph, "copies of pinned memory can be captured"
            for value in (5, 7):
                slot.array[:] = value
                lane.driver.launch(graph, lane.stream)
                lane.driver.synchronize(lane.stream)
                slot.array[:] = 0
                slot.copy_out(lane.stream)
                lane.driver.synchronize(lane.stream)
                assert (slot.array == value).all()
            lane.driver.free_graph(graph)
        slot.free()


def test_events_measure_time_on_the_gpu(lane):
    with lane:
        slot, events = slot_of(lane, 1 << 22), [lane.driver.create_event() for _ in range(2)]
        lane.driver.record(events[0], lane.stream)
        slot.copy_in(lane.stream)
        lane.driver.record(events[1], lane.stream)
        lane.driver.synchronize(lane.stream)
        assert 0 < lane.driver.milliseconds(*events) < 1000
        for event in events:
            lane.driver.destroy_event(event)
        slot.free()


def test_too_much_is_a_memory_error_after_which_there_is_as_much_as_before(lane):
    with pytest.raises(MemoryError), lane:
        lane.driver.allocate(TOO_MUCH)
    with lane:
        free = lane.driver.free_memory()
        buffer = lane.driver.allocate(1 << 20)
        lane.driver.free(buffer)
        assert free - lane.driver.free_memory() <= 64 << 20  # a package may keep some for the next


class Grow(torch.nn.Module):
    """Needs 4 GiB for a moment."""

    def forward(self, x):
        return torch.ones(1 << 30, device=x.device).sum().reshape(1) * x


@contextmanager
def limited(size):
    """torch's allocator may take so many bytes."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_an_engine_whose_memory_ends_says_so_and_runs_again_when_there_is_more():
    engine, x = TorchEngine(SPEC, Grow(), "cuda"), np.ones(1, np.float32)
    with limited(1 << 30), pytest.raises(MemoryError, match="^grow: CUDA out of memory"):
        engine(x=x)
    assert engine(x=x)["y"] == 1 << 30


def test_infer_ends_with_status_8_where_memory_is_limited(tmp_path):
    program = (
        "import sys, torch, runpy\n"
        "torch.cuda.set_per_process_memory_fraction(1e-4)\n"
        f"sys.argv = ['infer.py', '--device', 'cuda', '--out', {str(tmp_path / 'out')!r}]\n"
        "runpy.run_path('infer.py', run_name='__main__')\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 8 and "out of memory" in answer.stderr.lower(), answer.stderr[-2000:]
