"""The GPU's memory: drivers take and give it, graphs move what is in it now, and its end is a MemoryError."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.backends.torch_backend import TorchEngine
from engines.cuda.context import GpuContext
from engines.cuda.driver import DRIVERS, open_driver
from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, TensorSpec

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
TOO_MUCH = 1 << 45  # bytes, more than any GPU has
SPEC = ComponentSpec("grow", Cadence.STEP, (TensorSpec("x", (1,)),), (TensorSpec("y", (1,)),))


@pytest.fixture(params=DRIVERS)
def context(request):
    """A lane through each package that is installed."""
    try:
        driver = open_driver("cuda", request.param)
    except EngineError as refusal:
        pytest.skip(" ".join(str(refusal).split())[:300])
    context = GpuContext(driver)
    context.open()
    yield context
    context.close()


class Slot:
    """Floats in a context's pinned memory, and their place on the GPU."""

    def __init__(self, context, size):
        self.context = context
        self.fit(size)

    def fit(self, size):
        self.context.reserve(0, 4 * size)
        self.bytes = self.context.pin(4 * size)[: 4 * size]
        self.array = self.bytes.view(np.float32)

    def copy_in(self, stream):
        self.context.driver.copy_in(self.context.tensors.address, self.bytes, stream)

    def copy_out(self, stream):
        self.context.driver.copy_out(self.bytes, self.context.tensors.address, stream)


def test_what_goes_in_comes_out(context):
    with context:
        slot = Slot(context, 1000)
        slot.array[:] = np.arange(1000)
        slot.copy_in(context.stream)
        context.driver.synchronize(context.stream)
        slot.array[:] = 0
        slot.copy_out(context.stream)
        context.driver.synchronize(context.stream)
        np.testing.assert_array_equal(slot.array, np.arange(1000))


def test_a_graph_moves_what_memory_holds_when_it_is_launched_and_is_captured_anew_for_another_size(context):
    with context:
        slot = Slot(context, 256)
        for size in (256, 1 << 20):
            context.driver.synchronize(context.stream)
            slot.fit(size)
            slot.array[:] = 1
            slot.copy_in(context.stream)  # plain first, as before every capture
            context.driver.begin_capture(context.stream)
            slot.copy_in(context.stream)
            graph = context.driver.end_capture(context.stream)
            assert graph, "copies of pinned memory can be captured"
            for value in (5, 7):
                slot.array[:] = value
                context.driver.launch(graph, context.stream)
                context.driver.synchronize(context.stream)
                slot.array[:] = 0
                slot.copy_out(context.stream)
                context.driver.synchronize(context.stream)
                assert (slot.array == value).all()
            context.driver.free_graph(graph)


def test_too_much_is_a_memory_error_after_which_there_is_as_much_as_before(context):
    with pytest.raises(MemoryError), context:
        context.driver.allocate(TOO_MUCH)
    with context:
        free = torch.cuda.mem_get_info()[0]
        buffer = context.driver.allocate(1 << 20)
        context.driver.free(buffer)
        assert free - torch.cuda.mem_get_info()[0] <= 64 << 20  # a package may keep some for the next


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
