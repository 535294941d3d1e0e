"""TensorRT, classic or RTX: a component's engine file on a GPU, replayed as a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from engines.artifact import Artifact, check_agreement
from engines.cuda.context import GpuContext, IOBuffer, context_of
from engines.errors import EngineError
from engines.spec import ComponentSpec, Model, TensorSpec
from engines.tensorrt.api import INSTALL, TensorRT, installed
from engines.tensorrt.artifact import SUFFIX, find_engine
from engines.tensorrt.rtx_runtime import RtxContext, check_header
from engines.tensorrt.targets import runs_on

STARTS_FROM = SUFFIX
_RESERVE = 512 << 20  # bytes of GPU memory left for others when weights are streamed


def why_not(device: str) -> str | None:
    """Return None if TensorRT runs on that device here, else what is missing and what to do."""
    if not device.startswith("cuda"):
        return f"tensorrt runs on cuda, not on {device}; run with --device cuda"
    if not installed():
        return f"TensorRT is not installed; {INSTALL}"
    try:
        gpu = context_of(device).driver.gpu
    except (EngineError, MemoryError) as error:
        return "; ".join(str(error).splitlines())
    if not any(runs_on(api, gpu) for api in installed()):
        return f"{installed()[0]} does not run on {gpu.name} ({gpu.sm}); run: pip install tensorrt"
    return None


def packages(device: str) -> dict[str, str]:
    """Name what has to be installed, by what is imported: CUDA's driver through one of several packages."""
    return {"tensorrt": "tensorrt", "cuda": "cuda-python", "cupy": "cupy-cuda13x"}


def start(model: Model, component: str, precision: str, device: str, folder: Path) -> TensorRTEngine:
    """Start the component's engine file for this TensorRT and GPU. EngineError: none fits. MemoryError."""
    gpu, refusals = context_of(device), []
    for api in installed():
        try:
            artifact = find_engine(folder, model, component, precision, (api, gpu.driver.gpu))
        except EngineError as error:
            refusals.append(error)
            continue
        return TensorRTEngine(model.components[component], artifact, api, gpu)
    raise refusals[0] if refusals else EngineError(f"TensorRT is not installed; {INSTALL}")


def lacking(model: Model, precisions: Mapping[str, str], device: str, folder: Path) -> list[str]:
    """List the components without an engine file for this GPU and TensorRT. EngineError: there is no GPU."""
    reason = why_not(device)
    if reason:
        raise EngineError(reason)
    here = [(api, context_of(device).driver.gpu) for api in installed()]
    found = set()
    for component, precision in precisions.items():
        for built_for in here:
            with suppress(EngineError):
                find_engine(folder, model, component, precision, built_for)
                found.add(component)
    return [component for component in precisions if component not in found]


class TensorRTEngine:
    """An engine that runs one engine file; inputs and outputs are NumPy arrays by the spec's names.

    Engines of one GpuContext share its stream and activation memory, so they run one after the other, from
    any thread. A CUDA graph holds one shape and one set of addresses, and is captured anew when one changes.
    gpu_seconds: time on the GPU of the last call, copies left out.
    """

    def __init__(self, spec: ComponentSpec, artifact: Artifact, api: TensorRT, gpu: GpuContext) -> None:
        self.spec, self.path, self.gpu_seconds = spec, artifact.path, math.nan
        self._api, self._gpu, self._driver = api, gpu, gpu.driver
        self._limits = artifact.manifest["built_from"]["shapes"]
        self._runtime = self._engine = self._context = self._rtx = self._graph = None
        self._slots = {tensor.name: IOBuffer(self._driver) for tensor in (*spec.inputs, *spec.outputs)}
        self._events: list[object] = []
        self._activation_bytes = 0
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._addresses: tuple[int, ...] | None = None
        self._runs, self._capturable = 0, not api.is_rtx
        gpu.open()
        self._closed = False
        with ExitStack() as undo:
            undo.callback(self.close)
            with gpu:
                self._load(artifact.path)
            undo.pop_all()

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError."""
        self.spec.check(arrays)
        for tensor in self.spec.inputs:
            self._check_built_for(tensor, arrays[tensor.name].shape)
        with self._gpu:
            if self._closed:
                raise ValueError(f"{self.spec.name}: this engine is closed; build another")
            self._bind({name: array.shape for name, array in arrays.items()})
            for name, array in arrays.items():
                np.copyto(self._slots[name].array, array)
                self._slots[name].copy_in(self._gpu.stream)
            self._run()
            outputs = [tensor.name for tensor in self.spec.outputs]
            for name in outputs:
                self._slots[name].copy_out(self._gpu.stream)
            self._driver.synchronize(self._gpu.stream)
            self.gpu_seconds = self._driver.milliseconds(*self._events) / 1000
            return {name: self._slots[name].array.copy() for name in outputs}

    def close(self) -> None:
        """Free all of it: graph, buffers, context, engine, runtime, in this order."""
        with ExitStack() as last_in_first_out:
            last_in_first_out.enter_context(self._gpu)
            if self._closed:
                return
            self._closed = True
            last_in_first_out.callback(self._gpu.close)
            for name in ("_runtime", "_engine", "_context", "_rtx"):
                last_in_first_out.callback(setattr, self, name, None)
            for slot in self._slots.values():
                last_in_first_out.callback(slot.free)
            for event in self._events:
                last_in_first_out.callback(self._driver.destroy_event, event)
            last_in_first_out.callback(self._drop_graph)
            if self._rtx:
                last_in_first_out.callback(self._rtx.keep_kernels)
            last_in_first_out.callback(self._driver.synchronize, self._gpu.stream)

    def _load(self, path: Path) -> None:
        plan = path.read_bytes()
        self._runtime = runtime = self._api.create(self._api.trt.Runtime)
        if self._api.is_rtx:
            check_header(self._api, runtime, plan[: runtime.engine_header_size], path.name)
        what = f"{path.name} cannot be loaded; build it again with build_trt.py"
        self._engine = engine = self._api.checked(runtime.deserialize_cuda_engine(plan), what)
        self._verify(path)
        if engine.streamable_weights_size:
            self._stream_weights()
        if self._api.is_rtx:
            self._rtx = RtxContext(self._api, engine, path)
            self._context = self._rtx.context
        else:
            strategy = self._api.trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = engine.create_execution_context(strategy)
            self._context = self._api.checked(context, f"no execution context for {path.name}")
        self._activation_bytes = engine.device_memory_size_v2
        self._gpu.reserve(self._activation_bytes)
        for _ in range(2):
            self._events.append(self._driver.create_event())

    def _verify(self, path: Path) -> None:
        """Raise EngineError unless the engine's own names and dtypes are the spec's."""
        trt, engine = self._api.trt, self._engine
        found: dict[object, dict[str, str]] = {trt.TensorIOMode.INPUT: {}, trt.TensorIOMode.OUTPUT: {}}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            found[engine.get_tensor_mode(name)][name] = self._api.dtype_name(engine.get_tensor_dtype(name))
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise EngineError(f"{path} wants {name} on the host, which is not supported; pass no shapes")
        check_agreement(self.spec, path, *found.values())

    def _stream_weights(self) -> None:
        """Keep as many weights on the GPU as fit; a streaming engine cannot be captured."""
        engine, self._capturable = self._engine, False
        needed = engine.device_memory_size_v2 + engine.weight_streaming_scratch_memory_size
        budget = streaming_budget(engine.streamable_weights_size, self._driver.free_memory(), needed)
        engine.weight_streaming_budget_v2 = budget

    def _check_built_for(self, tensor: TensorSpec, shape: tuple[int, ...]) -> None:
        """Raise ValueError for a shape that the spec allows and this file was not built for."""
        least, _, most = self._limits[tensor.name]
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            raise ValueError(
                f"{self.spec.name}: this engine was built for {tensor.name} of {least} to {most}, got "
                f"{list(shape)}; run: python build_trt.py --component {self.spec.name} --shapes dynamic"
            )

    def _bind(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Set the context's shapes and addresses if one changed, and drop the graph of the old ones."""
        if shapes != self._shapes:
            self._drop_graph()
            self._reshape(shapes)
        self._gpu.reserve(self._activation_bytes)
        activations = self._gpu.activations
        addresses = tuple(slot.device.address for slot in self._slots.values())
        addresses += (activations.address,)
        if addresses == self._addresses:
            return
        self._drop_graph()
        self._addresses = None
        for name, slot in self._slots.items():
            bound = self._context.set_tensor_address(name, slot.device.address)
            self._api.checked(bound, f"{self.spec.name}: the address of {name} was refused")
        self._context.set_device_memory(activations.address, activations.size)
        self._addresses = addresses

    def _reshape(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = None
        self._driver.synchronize(self._gpu.stream)  # an earlier call may have failed with copies under way
        for name, shape in shapes.items():
            accepted = self._context.set_input_shape(name, shape)
            self._api.checked(accepted, f"{self.spec.name}: {name} of shape {shape} was refused")
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError as error:
            raise self._api.failure(f"{self.spec.name}: {shapes} give no output shapes") from error
        if unknown:
            raise self._api.failure(f"{self.spec.name}: the shapes of {unknown} stay unknown")
        for tensor in (*self.spec.inputs, *self.spec.outputs):
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            self._slots[tensor.name].fit(shape, tensor.dtype)
        self._shapes = shapes

    def _run(self) -> None:
        """Run once; the first run of a shape is plain, as a capture requires, and the second is captured."""
        if self._graph is None and self._runs == 1 and self._capturable:
            self._capture()
        start, end = self._events
        self._driver.record(start, self._gpu.stream)
        if self._graph is not None:
            self._driver.launch(self._graph, self._gpu.stream)
        else:
            queued = self._context.execute_async_v3(self._gpu.stream)
            self._api.checked(queued, f"{self.spec.name} did not run")
        self._driver.record(end, self._gpu.stream)
        self._runs += 1

    def _capture(self) -> None:
        """Capture a graph of one run; if that fails, runs stay plain, as in trtexec."""
        self._driver.begin_capture(self._gpu.stream)
        try:
            queued = self._context.execute_async_v3(self._gpu.stream)
        finally:
            self._graph = self._driver.end_capture(self._gpu.stream)
        if not queued:
            self._drop_graph()
            self._runs = 1
            self._api.take_messages()

    def _drop_graph(self) -> None:
        graph, self._graph, self._runs = self._graph, None, 0
        if graph is not None:
            self._driver.free_graph(graph)


def streaming_budget(streamable: int, free: int, needed: int) -> int:
    """Choose how many bytes of the weights that can be streamed stay on the GPU.

    Our own: TensorRT's automatic budget passes through 32 bits (11.1) and is wrong above 2 GiB.
    """
    return max(0, min(streamable, free - needed - _RESERVE))
