"""One TensorRT engine file on a GPU: what it was built for, and its calls; each set of shapes has a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from engines.artifact import Artifact, check_agreement
from engines.cuda.context import GpuContext, Layout
from engines.device_arrays import Array, Place
from engines.errors import EngineError
from engines.spare_memory import with_release
from engines.spec import ComponentSpec, TensorSpec
from engines.start_times import timing_first_calls
from engines.tensorrt.api import TensorRT
from engines.tensorrt.plan_reader import plan_of
from engines.tensorrt.rtx_runtime import RtxContext, check_header
from engines.tensorrt.shape_run import ShapeRun

RUNS = 4  # sets of shapes that keep a context and a graph: windows, a last one, one branch and two


class TensorRTEngine:
    """An engine that runs one engine file; inputs and outputs are arrays by the spec's names.

    Engines of one GpuContext share its stream and memory, so they run one after the other, from any thread.
    Each of the last few sets of shapes has a CUDA graph, see ShapeRun. Arrays of a place are copied to and
    from the addresses that it holds on the GPU, which costs a thousandth of what crossing does.
    """

    place: Place | None = None

    def __init__(self, spec: ComponentSpec, artifact: Artifact, api: TensorRT, gpu: GpuContext) -> None:
        self.spec, self.path = spec, artifact.path
        self._api, self._gpu, self._driver = api, gpu, gpu.driver
        self._limits = artifact.manifest["built_from"]["shapes"]
        self._runtime = self._engine = self._rtx = None
        self.capturable = not api.is_rtx  # whether its calls can be part of a CUDA graph of others
        self._reshaped = 0
        self._by_shapes: dict[tuple[tuple[int, ...], ...], ShapeRun] = {}  # the one used last at the end
        self._spare: list[ShapeRun] = []  # without shapes
        gpu.open()
        self._closed = False
        with ExitStack() as undo:
            undo.callback(self.close)
            with gpu:
                self._load(artifact.path)
            undo.pop_all()

    @timing_first_calls
    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError.

        EngineError: the file was not built for these shapes.
        """
        self.spec.check(arrays)
        for tensor in self.spec.inputs:
            self._check_built_for(tensor, arrays[tensor.name].shape)
        with self._gpu:
            if self._closed:
                raise ValueError(f"{self.spec.name}: this engine is closed; build another")
            run = self._run_at({tensor.name: tuple(arrays[tensor.name].shape) for tensor in self.spec.inputs})
            run.bind()
            if self.place:
                return self._between_arrays_of(self.place, run, arrays)
            self._copy_in(run, arrays)
            run.run()
            return self._copy_out(run, self.spec.outputs)

    @property
    def generation(self) -> tuple[int, int]:
        """What changes when graphs that calls of it are part of must be recorded anew."""
        return self._gpu.moved, self._reshaped

    @property
    def stream(self) -> int:
        """The handle of the stream that all its work is queued on."""
        return self._gpu.stream

    def _between_arrays_of(
        self, place: Place, run: ShapeRun, arrays: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Run on arrays of a place; what is not floating point comes to the host, and is waited for."""
        for name, array in arrays.items():
            held = place.asarray(array)
            place.copy(run.address(name), place.address(held), run.layout.nbytes(name))
        run.run(recorded=place.capturing)
        outputs = {}
        for tensor in self.spec.outputs:
            if np.dtype(tensor.dtype).kind == "f":
                made = outputs[tensor.name] = place.empty(run.layout.shape(tensor.name), tensor.dtype)
                place.copy(place.address(made), run.address(tensor.name), run.layout.nbytes(tensor.name))
        pixels = [tensor for tensor in self.spec.outputs if tensor.name not in outputs]
        return {**outputs, **(self._copy_out(run, pixels) if pixels else {})}

    def _run_at(self, shapes: dict[str, tuple[int, ...]]) -> ShapeRun:
        """Return the run of these shapes; beyond RUNS of them, the one that was not used for longest."""
        key = tuple(shapes.values())
        if key not in self._by_shapes:
            if not self._spare:
                self._spare.append(self._new_run() or self._by_shapes.pop(next(iter(self._by_shapes))))
            self._reshaped += 1
            self._spare[-1].reshape(shapes)
            self._by_shapes[key] = self._spare.pop()
        self._by_shapes[key] = self._by_shapes.pop(key)
        return self._by_shapes[key]

    def _new_run(self) -> ShapeRun | None:
        """Open a context for another set of shapes; None if there are enough, or it is not to be had."""
        if len(self._by_shapes) == RUNS or not self.capturable:
            return None
        context = self._open_context()
        if context is None:
            self._api.take_messages()
            return None
        return ShapeRun(context, self.spec, self._api, self._gpu, self.capturable)

    def _open_context(self) -> object | None:
        strategy = self._api.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self._engine.create_execution_context(strategy)

    def _copy_in(self, run: ShapeRun, arrays: Mapping[str, np.ndarray]) -> None:
        crossing = Layout({name: (array.shape, array.dtype) for name, array in arrays.items()})
        pinned = self._gpu.pin(crossing.size)
        if self._gpu.copying:  # of an earlier call, which has failed
            self._driver.synchronize(self._gpu.stream)
        self._gpu.copying = True
        for name, array in arrays.items():
            np.copyto(crossing.array(name, pinned), array)
            self._driver.copy_in(run.address(name), crossing.bytes_of(name, pinned), self._gpu.stream)

    def _copy_out(self, run: ShapeRun, tensors: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
        layout = run.layout
        crossing = Layout({tensor.name: (layout.shape(tensor.name), tensor.dtype) for tensor in tensors})
        pinned = self._gpu.pin(crossing.size)
        for tensor in tensors:
            part = crossing.bytes_of(tensor.name, pinned)
            self._driver.copy_out(part, run.address(tensor.name), self._gpu.stream)
        self._driver.synchronize(self._gpu.stream)
        self._gpu.copying = False
        return {tensor.name: crossing.array(tensor.name, pinned).copy() for tensor in tensors}

    def close(self) -> None:
        """Free all of it: graphs, buffers, contexts, engine, runtime, in this order."""
        with ExitStack() as last_in_first_out:
            last_in_first_out.enter_context(self._gpu)
            if self._closed:
                return
            self._closed = True
            last_in_first_out.callback(self._gpu.close)
            for name in ("_runtime", "_engine", "_rtx"):
                last_in_first_out.callback(setattr, self, name, None)
            last_in_first_out.callback(self._spare.clear)
            last_in_first_out.callback(self._by_shapes.clear)
            for run in self._by_shapes.values():
                last_in_first_out.callback(run.drop_graph)
            if self._rtx:
                last_in_first_out.callback(self._rtx.keep_kernels)
            last_in_first_out.callback(self._driver.synchronize, self._gpu.stream)

    def _load(self, path: Path) -> None:
        self._runtime = self._api.create(self._api.trt.Runtime)
        self._engine = with_release(partial(self._deserialize, path))
        self._verify(path)
        if self._api.is_rtx:
            self._rtx = RtxContext(self._api, self._engine, path)
            context = self._rtx.context
        else:
            what = f"no execution context for {path.name}"
            context = with_release(lambda: self._api.checked(self._open_context(), what))
        self._spare.append(ShapeRun(context, self.spec, self._api, self._gpu, self.capturable))

    def _deserialize(self, path: Path) -> object:
        with path.open("rb") as file:
            if self._api.is_rtx:
                size = self._runtime.engine_header_size
                check_header(self._api, self._runtime, file.read(size), path.name)
                file.seek(0)
            found = self._runtime.deserialize_cuda_engine(plan_of(self._api, file))
        return self._api.checked(found, f"{path.name} cannot be loaded; build it again with build_trt.py")

    def _verify(self, path: Path) -> None:
        """Raise EngineError unless the engine's own names and dtypes are the spec's."""
        trt, engine = self._api.trt, self._engine
        found: dict[object, dict[str, str]] = {trt.TensorIOMode.INPUT: {}, trt.TensorIOMode.OUTPUT: {}}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            found[engine.get_tensor_mode(name)][name] = self._api.dtype_name(engine.get_tensor_dtype(name))
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise EngineError(f"{path} wants {name} on the host, which is not supported; pass no shapes")
        check_agreement(self.spec, path, *found.values())

    def _check_built_for(self, tensor: TensorSpec, shape: tuple[int, ...]) -> None:
        """Raise EngineError for a shape that the spec allows and this file was not built for."""
        least, _, most = self._limits[tensor.name]
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            raise EngineError(
                f"{self.spec.name}: this engine was built for {tensor.name} of {least} to {most}, got "
                f"{list(shape)}; run: python build_trt.py --component {self.spec.name} --shapes dynamic"
            )
