"""One TensorRT engine file on a GPU: its shapes, addresses and memory, and the CUDA graph of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from engines.artifact import Artifact, check_agreement
from engines.cuda.context import GpuContext, Layout
from engines.device_arrays import Array, Place
from engines.errors import EngineError
from engines.spec import ComponentSpec, TensorSpec
from engines.start_times import timing_first_calls
from engines.tensorrt.api import TensorRT
from engines.tensorrt.plan_reader import plan_of
from engines.tensorrt.rtx_runtime import RtxContext, check_header

_RESERVE = 512 << 20  # bytes of GPU memory left for others when weights are streamed


class TensorRTEngine:
    """An engine that runs one engine file; inputs and outputs are arrays by the spec's names.

    Engines of one GpuContext share its stream and memory, so they run one after the other, from any thread.
    A CUDA graph holds one shape and one set of addresses, and is captured anew when one changes: arrays of a
    place are copied to and from these addresses on the GPU, which costs a thousandth of what crossing does.
    """

    place: Place | None = None

    def __init__(self, spec: ComponentSpec, artifact: Artifact, api: TensorRT, gpu: GpuContext) -> None:
        self.spec, self.path = spec, artifact.path
        self._api, self._gpu, self._driver = api, gpu, gpu.driver
        self._limits = artifact.manifest["built_from"]["shapes"]
        self._runtime = self._engine = self._context = self._rtx = self._graph = None
        self._layout: Layout | None = None
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

    @timing_first_calls
    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError."""
        self.spec.check(arrays)
        for tensor in self.spec.inputs:
            self._check_built_for(tensor, arrays[tensor.name].shape)
        with self._gpu:
            if self._closed:
                raise ValueError(f"{self.spec.name}: this engine is closed; build another")
            self._bind({name: tuple(array.shape) for name, array in arrays.items()})
            if self.place:
                return self._between_arrays_of(self.place, arrays)
            crossing = Layout({name: (array.shape, array.dtype) for name, array in arrays.items()})
            self._copy_in(crossing, arrays)
            self._run()
            return self._copy_out(self.spec.outputs)

    @property
    def stream(self) -> int:
        """The handle of the stream that all its work is queued on."""
        return self._gpu.stream

    def _between_arrays_of(self, place: Place, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run on arrays of a place; what is not floating point comes to the host, and is waited for."""
        for name, array in arrays.items():
            held = place.asarray(array)
            place.copy(self._address(name), place.address(held), self._layout.nbytes(name))
        self._run()
        outputs = {}
        for tensor in self.spec.outputs:
            if np.dtype(tensor.dtype).kind == "f":
                made = outputs[tensor.name] = place.empty(self._layout.shape(tensor.name), tensor.dtype)
                place.copy(place.address(made), self._address(tensor.name), self._layout.nbytes(tensor.name))
        pixels = [tensor for tensor in self.spec.outputs if tensor.name not in outputs]
        return {**outputs, **(self._copy_out(pixels) if pixels else {})}

    def _copy_in(self, crossing: Layout, arrays: Mapping[str, np.ndarray]) -> None:
        pinned = self._gpu.pin(crossing.size)
        if self._gpu.copying:  # of an earlier call, which has failed
            self._driver.synchronize(self._gpu.stream)
        self._gpu.copying = True
        for name, array in arrays.items():
            np.copyto(crossing.array(name, pinned), array)
            self._driver.copy_in(self._address(name), crossing.bytes_of(name, pinned), self._gpu.stream)

    def _copy_out(self, tensors: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
        layout = self._layout
        crossing = Layout({tensor.name: (layout.shape(tensor.name), tensor.dtype) for tensor in tensors})
        pinned = self._gpu.pin(crossing.size)
        for tensor in tensors:
            part = crossing.bytes_of(tensor.name, pinned)
            self._driver.copy_out(part, self._address(tensor.name), self._gpu.stream)
        self._driver.synchronize(self._gpu.stream)
        self._gpu.copying = False
        return {tensor.name: crossing.array(tensor.name, pinned).copy() for tensor in tensors}

    def _address(self, name: str) -> int:
        return self._gpu.tensors.address + self._layout.offset(name)

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
            last_in_first_out.callback(self._drop_graph)
            if self._rtx:
                last_in_first_out.callback(self._rtx.keep_kernels)
            last_in_first_out.callback(self._driver.synchronize, self._gpu.stream)

    def _load(self, path: Path) -> None:
        self._runtime = runtime = self._api.create(self._api.trt.Runtime)
        what = f"{path.name} cannot be loaded; build it again with build_trt.py"
        with path.open("rb") as file:
            if self._api.is_rtx:
                check_header(self._api, runtime, file.read(runtime.engine_header_size), path.name)
                file.seek(0)
            found = runtime.deserialize_cuda_engine(plan_of(self._api, file))
        self._engine = engine = self._api.checked(found, what)
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
        self._gpu.reserve(self._activation_bytes, self._layout.size)
        activations = self._gpu.activations
        names = [tensor.name for tensor in (*self.spec.inputs, *self.spec.outputs)]
        addresses = (*(self._address(name) for name in names), activations.address)
        if addresses == self._addresses:
            return
        self._drop_graph()
        self._addresses = None
        for name in names:
            bound = self._context.set_tensor_address(name, self._address(name))
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
        tensors = (*self.spec.inputs, *self.spec.outputs)
        found = {each.name: tuple(self._context.get_tensor_shape(each.name)) for each in tensors}
        self._layout = Layout({each.name: (found[each.name], each.dtype) for each in tensors})
        self._activation_bytes = self._context.update_device_memory_size_for_shapes()
        self._shapes = shapes

    def _run(self) -> None:
        """Run once; the first run of a shape is plain, as a capture requires, and the second is captured."""
        if self._graph is None and self._runs == 1 and self._capturable:
            self._capture()
        if self._graph is not None:
            self._driver.launch(self._graph, self._gpu.stream)
        else:
            queued = self._context.execute_async_v3(self._gpu.stream)
            self._api.checked(queued, f"{self.spec.name} did not run")
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
