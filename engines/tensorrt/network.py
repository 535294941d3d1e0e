"""A graph as TensorRT sees it, ready to be built: network, shapes and builder configuration."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from engines.artifact import check_agreement
from engines.errors import EngineError, UsageError
from engines.spec import ComponentSpec, DimRange
from engines.tensorrt.api import TensorRT

Shapes = dict[str, list[list[int]]]  # the min, opt and max sizes of each input, by name


@dataclass(frozen=True)
class Settings:
    """The settings of a build.

    fixed: for the best sizes of the spec only. level: the builder's effort, 0 to 5. memory: bytes of GPU
    memory that kernels may use beside weights and activations, None for all of it.
    """

    fixed: bool = False
    level: int = 3
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 5:
            raise UsageError(f"the builder level is 0 to 5, got {self.level}")
        if self.memory is not None and self.memory <= 0:
            raise UsageError(f"the memory limit must be above 0, got {self.memory}")


def shapes_of(spec: ComponentSpec, fixed: bool) -> Shapes:
    """List the sizes that the spec allows; fixed: the opt sizes only, for a faster engine."""
    shapes: Shapes = {}
    for named in spec.inputs:
        limits = [spec.ranges[dim] if isinstance(dim, str) else DimRange(dim, dim, dim) for dim in named.dims]
        best = [limit.opt for limit in limits]
        least, most = [limit.min for limit in limits], [limit.max for limit in limits]
        shapes[named.name] = [best, best, best] if fixed else [least, best, most]
    return shapes


def check_shapes(spec: ComponentSpec, shapes: Shapes, network: dict[str, tuple[int, ...]]) -> None:
    """Raise EngineError unless a graph's inputs, -1 where a size is free, can have these sizes.

    TensorRT takes a profile of a wrong rank, or of an input that is not there, without a word.
    """
    if set(shapes) != set(network):
        raise EngineError(f"{spec.name}: the graph's inputs are {sorted(network)}, expected {sorted(shapes)}")
    for name, sizes in shapes.items():
        for wanted in sizes:
            fits = len(wanted) == len(network[name]) and all(
                size in (-1, want) for want, size in zip(wanted, network[name], strict=True)
            )
            if not fits:
                raise EngineError(
                    f"{spec.name}: {name} of {wanted} does not fit the graph's {list(network[name])} (-1 is "
                    "free); the graph was exported for other sizes: run export_onnx.py again"
                )


class Network:
    """A parsed graph with its builder; EngineError if TensorRT does not take the file.

    All of TensorRT's objects live here, and go in order with close: the parser does not keep the network
    alive, and a network freed too early ends the process (RTX 1.7); the garbage collector knows no order.
    """

    def __init__(self, api: TensorRT, spec: ComponentSpec, onnx: Path) -> None:
        trt = api.trt
        api.take_messages()
        self.api, self.spec, self.onnx = api, spec, onnx
        self.network = self.parser = self.config = None
        self.profile: object | None = None
        self.monitor: object | None = None  # of progress, which must outlive the configuration
        self.builder = api.create(trt.Builder)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._open(trt)
            undo.pop_all()

    def close(self) -> None:
        """Free TensorRT's objects, each before what it was made from."""
        self.config = None
        self.monitor = self.profile = None
        self.parser = None
        self.network = None
        self.builder = None

    def _open(self, trt: ModuleType) -> None:
        api = self.api
        # Strongly typed: precisions are those of the graph, so that what was checked is what runs.
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = api.checked(self.builder.create_network(flags), f"{api} made no network")
        self.parser = api.create(trt.OnnxParser, self.network)
        self._parse()
        self._allow_decomposing()
        self.config = api.checked(self.builder.create_builder_config(), f"{api} made no configuration")

    @property
    def inputs(self) -> list:
        """The network's input tensors."""
        return [self.network.get_input(i) for i in range(self.network.num_inputs)]

    @property
    def outputs(self) -> list:
        """The network's output tensors."""
        return [self.network.get_output(i) for i in range(self.network.num_outputs)]

    def set_shapes(self, shapes: Shapes) -> None:
        """Set the sizes to build for: constants if there is one of each, else an optimization profile."""
        check_shapes(self.spec, shapes, {tensor.name: tuple(tensor.shape) for tensor in self.inputs})
        if all(least == most for least, _, most in shapes.values()):
            for tensor in self.inputs:
                tensor.shape = shapes[tensor.name][0]
            return
        self.profile = profile = self.builder.create_optimization_profile()
        for tensor in self.inputs:
            profile.set_shape(tensor.name, *shapes[tensor.name])
        self.api.checked(self.config.add_optimization_profile(profile), f"{self.onnx.name}: profile refused")

    def configure(self, settings: Settings) -> None:
        """Set the builder's effort, memory and flags, after the sizes."""
        trt, config = self.api.trt, self.config
        config.builder_optimization_level = settings.level
        if settings.memory is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.memory)
        # TF32 rounds to 10 bits what is said to be in fp32: the base model, and layers that must stay exact.
        config.clear_flag(trt.BuilderFlag.TF32)
        resize = self.api.maybe("PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10")
        if self.profile is not None and resize is not None:
            # Else what kernels need within themselves stays that of the profile's largest sizes (NvInfer.h).
            config.set_preview_feature(resize, True)

    def activation_bytes(self) -> int:
        """Estimate the most bytes alive at once if layers ran one by one; fused layers need less.

        Only for a network whose shapes are all known.
        """
        layers = [self.network.get_layer(i) for i in range(self.network.num_layers)]
        constant = self.api.trt.LayerType.CONSTANT
        layers = [layer for layer in layers if layer.type != constant]
        last_use = {
            tensor.name: number
            for number, layer in enumerate(layers)
            for tensor in map(layer.get_input, range(layer.num_inputs))
            if tensor is not None
        }
        last_use |= {tensor.name: len(layers) for tensor in self.outputs}
        alive, most = {tensor.name: _bytes(tensor) for tensor in self.inputs}, 0
        for number, layer in enumerate(layers):
            alive.update({t.name: _bytes(t) for t in map(layer.get_output, range(layer.num_outputs))})
            most = max(most, sum(alive.values()))
            alive = {name: size for name, size in alive.items() if last_use.get(name, number) > number}
        return most

    def _allow_decomposing(self) -> None:
        """Let attention run as several kernels where there is no fused one, as in fp32; else no build."""
        trt = self.api.trt
        kind = self.api.maybe("LayerType.ATTENTION_INPUT")
        for layer in map(self.network.get_layer, range(self.network.num_layers)):
            if kind is not None and layer.type == kind:
                attending = layer
                attending.__class__ = trt.IAttentionInputLayer  # the network gives every layer as an ILayer
                attending.attention.decomposable = True

    def _parse(self) -> None:
        if not self.parser.parse_from_file(str(self.onnx)):
            errors = [self.parser.get_error(i).desc() for i in range(self.parser.num_errors)]
            raise self.api.failure(f"{self.onnx} cannot be built", errors)
        found = [{t.name: self.api.dtype_name(t.dtype) for t in side} for side in (self.inputs, self.outputs)]
        check_agreement(self.spec, self.onnx, *found)
        if any(tensor.is_shape_tensor for tensor in self.inputs):
            raise EngineError(f"{self.onnx} computes shapes from an input's values, which is not supported")


def _bytes(tensor: object) -> int:
    size = 1
    for dim in tensor.shape:
        size *= dim
    return int(size * tensor.dtype.itemsize)
