"""A TensorRT runtime in NumPy on the fake GPU, an engine of it, and what tests ask of such an engine.

It notices a graph that is replayed after its shapes or addresses changed.
"""

from enum import Enum, IntEnum

import numpy as np
import pytest

from engines.artifact import Artifact
from engines.cuda.context import GpuContext
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from engines.tensorrt.api import TensorRT
from engines.tensorrt.engine import TensorRTEngine
from engines.tensorrt.network import shapes_of
from tests.fake_driver import FakeDriver

SPEC = ComponentSpec("mix", Cadence.STEP, (TensorSpec("a", ("n", 3)), TensorSpec("b", ("n",), "uint8")),
                     (TensorSpec("sum", ("n", 3)), TensorSpec("twice", ("n",), "uint8")),
                     {"n": DimRange(1, 2, 8)})


def mix(a, b):
    return {"sum": a + b[:, None], "twice": 2 * b}


def inputs(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"a": rng.random((n, 3), np.float32), "b": rng.integers(0, 100, n, np.uint8)}


class FakeReader:
    """The base of readers, which wants its own __init__ called; it asks in two parts, and again for the rest.

    asked: sizes that were given. The first call goes to the end and back, as the whole size is not told.
    """

    def __init__(self):
        self.asked = []

    def read_as_tensorrt(self, seek):
        parts = [self._read(32)]
        assert self.seek(-32, seek.CUR) and self.seek(0, seek.END) and self.seek(32, seek.SET)
        parts.append(self._read(96))
        return b"".join(parts) if len(parts[0] + parts[1]) == 128 else b""

    def _read(self, size):
        found = b""
        while len(found) < size and (part := self.read(size - len(found), 0)):
            assert len(part) <= size - len(found)
            self.asked.append(len(part))
            found += part
        return found


class FakeTensorRT:
    """A module whose engines run function(**inputs), outputs by name, for a spec; rtx: of that flavour."""

    class ILogger:
        pass

    class DataType(Enum):
        FLOAT, UINT8 = 0, 1

    SeekPosition = Enum("SeekPosition", "SET CUR END")
    IStreamReaderV2 = FakeReader
    TensorIOMode = Enum("TensorIOMode", "INPUT OUTPUT")
    TensorLocation = Enum("TensorLocation", "DEVICE HOST")
    ExecutionContextAllocationStrategy = Enum("ExecutionContextAllocationStrategy", "STATIC USER_MANAGED")
    CudaGraphStrategy = Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
    DynamicShapesKernelSpecializationStrategy = Enum("Specialization", "LAZY EAGER")
    PreviewFeature = Enum("PreviewFeature", "RUNTIME_ACTIVATION_RESIZE_10_10")
    ComputeCapability = Enum("ComputeCapability", "SM86 SM89")
    EngineValidity = Enum("EngineValidity", "VALID SUBOPTIMAL INVALID")

    class EngineInvalidityDiagnostics(IntEnum):
        VERSION_MISMATCH, UNSUPPORTED_CC = 1, 2

    def __init__(self, driver, spec, function, rtx=False):
        self.__name__ = "tensorrt_rtx" if rtx else "tensorrt"
        self.__version__ = "1.7.0" if rtx else "10.16.0"
        self.driver, self.spec, self.function = driver, spec, function
        self.activations, self.capturable, self.inconsistent = 1000, True, False
        self.validity = (self.EngineValidity.VALID, 0)
        self.contexts = []

    def Runtime(self, logger):  # noqa: N802
        self.logger = logger
        return FakeRuntime(self) if self.works("Runtime", None) else None

    def works(self, name, answer):
        """True, or what TensorRT does when it fails: it says so in the log."""
        if not self.driver.faults.hit(name):
            return True
        why = " (out of memory)" if self.driver.error is MemoryError else ""
        self.logger.log(Severity.ERROR, f"{name} was told to fail{why}")
        return answer


Severity = Enum("Severity", "ERROR WARNING INFO")


class FakeRuntime:
    engine_header_size = 64

    def __init__(self, trt):
        self.trt = trt

    def get_engine_validity(self, header):
        return self.trt.validity

    def deserialize_cuda_engine(self, plan):
        self.trt.reader = plan
        self.trt.plan = plan.read_as_tensorrt(self.trt.SeekPosition)
        if not self.trt.plan:
            return None
        return FakeEngine(self.trt) if self.trt.works("deserialize", None) else None


class FakeEngine:
    def __init__(self, trt):
        self.trt, self.tensors = trt, [*trt.spec.inputs, *trt.spec.outputs]
        self.num_io_tensors = len(self.tensors)
        self.device_memory_size_v2 = trt.activations
        trt.engine = self

    def get_tensor_name(self, i):
        return self.tensors[i].name

    def get_tensor_mode(self, name):
        inputs = [tensor.name for tensor in self.trt.spec.inputs]
        return self.trt.TensorIOMode.INPUT if name in inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        dtype = next(tensor.dtype for tensor in self.tensors if tensor.name == name)
        return {"float32": self.trt.DataType.FLOAT, "uint8": self.trt.DataType.UINT8}[dtype]

    def get_tensor_location(self, name):
        return self.trt.TensorLocation.DEVICE

    def create_runtime_config(self):
        return FakeRuntimeConfig(self.trt) if self.trt.works("create_runtime_config", None) else None

    def create_execution_context(self, how):
        if not self.trt.works("create_execution_context", None):
            return None
        self.trt.contexts.append(FakeContext(self, self.tensors))
        return self.trt.contexts[-1]


class FakeRuntimeConfig:
    def __init__(self, trt):
        self.trt, trt.runtime_config = trt, self
        self.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED

    def set_execution_context_allocation_strategy(self, strategy):
        assert strategy is self.trt.ExecutionContextAllocationStrategy.USER_MANAGED

    def create_runtime_cache(self):
        return FakeRuntimeCache() if self.trt.works("create_runtime_cache", None) else None

    def set_runtime_cache(self, cache):
        self.cache = cache
        return self.trt.works("set_runtime_cache", False)


class FakeRuntimeCache:
    read = b""

    def deserialize(self, data):
        self.read = data
        return True

    def serialize(self):
        return b"kernels"


class FakeContext:
    def __init__(self, engine, tensors):
        self.engine, self.trt, self.tensors = engine, engine.trt, {tensor.name: tensor for tensor in tensors}
        self.shapes, self.addresses, self.memory, self.state = {}, {}, None, 0

    def set_input_shape(self, name, shape):
        self.state += 1
        self.shapes[name] = shape
        return self.trt.works("set_input_shape", False)

    def infer_shapes(self):
        if self.trt.inconsistent:
            raise RuntimeError("pybind's own")
        return [] if self.trt.works("infer_shapes", False) else ["x"]

    def update_device_memory_size_for_shapes(self):
        """As much for each frame as there is for the most of a profile; memory is to be set again."""
        self.memory = None
        return self._memory_size() if self.trt.works("update_device_memory_size_for_shapes", 0) else 0

    def _memory_size(self):
        return self.trt.activations * next(iter(self.shapes.values()))[0] // 8

    def get_tensor_shape(self, name):
        sizes = {dim: size for input_name, shape in self.shapes.items()
                 for dim, size in zip(self.tensors[input_name].dims, shape, strict=True)}
        return [sizes.get(dim, dim) for dim in self.tensors[name].dims]

    def set_tensor_address(self, name, address):
        self.state += 1
        self.addresses[name] = address
        return self.trt.works("set_tensor_address", False)

    def set_device_memory(self, address, size):
        self.state += 1
        assert size >= self._memory_size()
        self.memory = address if self.trt.works("set_device_memory", True) else None

    def execute_async_v3(self, stream):
        driver, state = self.trt.driver, self.state
        assert self.memory is not None, "a run without memory for its activations"
        spoilt = driver.capturing is not None and not self.trt.capturable
        if not self.trt.works("execute", False) or spoilt:
            if driver.capturing is not None:
                driver.queue(lambda: pytest.fail("half a run was replayed"), stream)
            return False

        def run():
            assert state == self.state, "a graph was replayed after its shapes or addresses changed"
            driver.memory(self.memory)[:] = 0  # whatever lay there belongs to an earlier run
            views = {name: self._view(driver.memory(self.addresses[name]), name) for name in self.tensors}
            inputs = {tensor.name: views[tensor.name] for tensor in self.trt.spec.inputs}
            for name, value in self.trt.function(**inputs).items():
                views[name][...] = value

        driver.queue(run, stream)
        return True

    def _view(self, memory, name):
        shape, dtype = tuple(self.get_tensor_shape(name)), np.dtype(self.tensors[name].dtype)
        return memory[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)


class VideoRunner:
    """Starts engines on a fake GPU; each has .driver, .trt, .lane and .file, and the last's stay here."""

    def __init__(self, folder):
        self.file = folder / "mix-fp16-00000000.engine"
        self.file.write_bytes(b"plan" * 32)

    def __call__(self, context=None, rtx=False, faults=None, fixed=False, error=MemoryError,
                 spec=SPEC, function=mix, **attributes):
        self.driver = context.driver if context else FakeDriver(faults, error=error)
        self.trt = FakeTensorRT(self.driver, spec, function, rtx)
        vars(self.trt).update(attributes)
        artifact = Artifact(self.file, {"built_from": {"shapes": shapes_of(spec, fixed)}})
        context = context or GpuContext(self.driver)
        engine = TensorRTEngine(spec, artifact, TensorRT(self.trt), context)
        engine.driver, engine.trt, engine.context, engine.file = self.driver, self.trt, context, self.file
        return engine


def check(engine, n, seed=0):
    given = inputs(n, seed)
    outputs, expected = engine(**given), mix(**given)
    assert list(outputs) == ["sum", "twice"]
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)
        assert outputs[name].dtype == value.dtype and outputs[name].flags.owndata
    return engine.driver.faults.calls


def calls_of(engine, n, seed=0):
    before = len(engine.driver.faults.calls)
    return check(engine, n, seed)[before:]
