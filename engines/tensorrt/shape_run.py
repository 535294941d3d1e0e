"""The runs of a TensorRT engine at one set of shapes: where its tensors lie, and the CUDA graph of a run."""

from __future__ import annotations

from engines.cuda.context import GpuContext, Layout
from engines.spec import ComponentSpec
from engines.tensorrt.api import TensorRT


class ShapeRun:
    """An execution context with the shapes and addresses that it was told, and the graph that these make.

    A graph is valid while its context keeps both, so each set of shapes has a context of its own. Their
    activations and tensors lie in the memory that all engines of the GPU share; where that moved, a context
    is told its addresses anew, and its graph is captured anew. layout: of the tensors.
    """

    def __init__(
        self, context: object, spec: ComponentSpec, api: TensorRT, gpu: GpuContext, capturable: bool
    ) -> None:
        self.layout: Layout | None = None
        self._context, self._spec, self._api, self._gpu, self._driver = context, spec, api, gpu, gpu.driver
        self._capturable, self._graph, self._runs = capturable, None, 0
        self._activation_bytes, self._addresses = 0, ()

    def address(self, name: str) -> int:
        """Return where a tensor lies on the GPU."""
        return self._gpu.tensors.address + self.layout.offset(name)

    def reshape(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Set the shapes of the inputs. EngineError, MemoryError."""
        self._driver.synchronize(self._gpu.stream)  # an earlier call may have failed with copies under way
        self.drop_graph()
        self._addresses = ()  # activations of another size count as memory of theirs once they are set again
        name = self._spec.name
        for tensor, shape in shapes.items():
            accepted = self._context.set_input_shape(tensor, shape)
            self._api.checked(accepted, f"{name}: {tensor} of shape {shape} was refused")
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError as error:
            raise self._api.failure(f"{name}: {shapes} give no output shapes") from error
        if unknown:
            raise self._api.failure(f"{name}: the shapes of {unknown} stay unknown")
        tensors = (*self._spec.inputs, *self._spec.outputs)
        found = {each.name: tuple(self._context.get_tensor_shape(each.name)) for each in tensors}
        self.layout = Layout({each.name: (found[each.name], each.dtype) for each in tensors})
        needed = self._context.update_device_memory_size_for_shapes()  # 0 if it fails, too
        self._activation_bytes = needed or self._context.engine.device_memory_size_v2

    def bind(self) -> None:
        """Set the addresses of tensors and activations if one changed, and drop the graph of the old ones."""
        self._gpu.reserve(self._activation_bytes, self.layout.size)
        activations = self._gpu.activations
        names = [tensor.name for tensor in (*self._spec.inputs, *self._spec.outputs)]
        addresses = (*(self.address(name) for name in names), activations.address)
        if addresses == self._addresses:
            return
        self.drop_graph()
        self._addresses = ()
        for name in names:
            bound = self._context.set_tensor_address(name, self.address(name))
            self._api.checked(bound, f"{self._spec.name}: the address of {name} was refused")
        with self._api.heard(f"{self._spec.name}: the memory of activations was refused"):
            self._context.set_device_memory(activations.address, activations.size)
        self._addresses = addresses

    def run(self, recorded: bool = False) -> None:
        """Queue a run; the first of a shape is plain, as a capture requires, and the second is captured.

        recorded: it is part of a graph of others, and has none of its own.
        """
        if recorded:
            return self._queue()
        if self._graph is None and self._runs == 1 and self._capturable:
            self._capture()
        if self._graph is not None:
            self._driver.launch(self._graph, self._gpu.stream)
        else:
            self._queue()
        self._runs += 1

    def _queue(self) -> None:
        queued = self._context.execute_async_v3(self._gpu.stream)
        self._api.checked(queued, f"{self._spec.name} did not run")

    def drop_graph(self) -> None:
        """Free the graph, if there is one."""
        graph, self._graph, self._runs = self._graph, None, 0
        if graph is not None:
            self._driver.free_graph(graph)

    def _capture(self) -> None:
        """Capture a graph of one run; if that fails, runs stay plain, as in trtexec."""
        self._driver.begin_capture(self._gpu.stream)
        try:
            queued = self._context.execute_async_v3(self._gpu.stream)
        finally:
            self._graph = self._driver.end_capture(self._gpu.stream)
        if not queued:
            self.drop_graph()
            self._runs = 1
            self._api.take_messages()
