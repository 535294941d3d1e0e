"""Build an engine artifact from a component's ONNX artifact, or plan what would be built."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.artifact import Artifact, Field, Label, writing
from engines.errors import EngineError
from engines.spec import ComponentSpec, Model
from engines.tensorrt.artifact import BUILDER, SUFFIX, find_graph, system, toolchain
from engines.tensorrt.build_progress import Report, interruptible, progress_monitor
from engines.tensorrt.network import Network, Settings, Shapes, shapes_of
from engines.tensorrt.rtx_runtime import verdict
from engines.tensorrt.targets import Targets, capability, check_precision
from engines.tensorrt.timing_cache import TimingCache


@dataclass(frozen=True)
class Order:
    """An engine to build: its graph, its targets and the builder's settings."""

    spec: ComponentSpec
    precision: str
    onnx: Artifact
    targets: Targets
    settings: Settings

    @property
    def label(self) -> Label:
        """The label of the engine artifact."""
        return Label(self.spec.name, self.precision, SUFFIX)

    @property
    def shapes(self) -> Shapes:
        """The min, opt and max sizes of the inputs."""
        return shapes_of(self.spec, self.settings.fixed)

    def built_from(self) -> dict[str, Field]:
        """Describe all that the engine depends on."""
        graph = self.onnx.manifest["built_from"]
        return {
            "component": self.spec.name,
            "precision": self.precision,
            "onnx": self.onnx.content,
            "weights": graph.get("weights"),
            "loras": graph.get("loras"),
            "spec": self.spec.described(),
            "shapes": self.shapes,
            "builder": {**asdict(self.settings), **BUILDER},
            "toolchain": toolchain(self.targets.api),
            "targets": dict(self.targets.gpus),
            "os": system(),
        }


@dataclass(frozen=True)
class Plan:
    """The outcome of a build, sizes in bytes; activations is an upper estimate at the largest sizes."""

    order: Order
    layers: int
    weights: int
    activations: int

    def __str__(self) -> str:
        order = self.order
        lines = [
            f"{order.label}: {order.targets.api}, for {', '.join(order.targets.gpus)}, "
            f"level {order.settings.level}, {'fixed' if order.settings.fixed else 'dynamic'} shapes",
            f"  {self.layers} layers, graph {self.weights / 1e6:.1f} MB (the engine: one to two times that), "
            f"activations up to {self.activations / 1e6:.1f} MB",
        ]
        for name, (least, best, most) in order.shapes.items():
            sizes = [least, best, most] if least != most else [best]
            lines.append(f"  {name}: {' .. '.join('x'.join(map(str, size)) for size in sizes)}")
        return "\n".join(lines)


def place_orders(
    model: Model, precisions: Mapping[str, str], folder: Path, targets: Targets, settings: Settings
) -> list[Order]:
    """Make an order for each component that precisions names.

    EngineError: a graph is not in the folder or does not fit the model, or a target lacks the precision.
    """
    orders = []
    for component, precision in precisions.items():
        check_precision(targets, precision)
        onnx = find_graph(folder, model, component, precision, targets.api)
        orders.append(Order(model.components[component], precision, onnx, targets, settings))
    return orders


def plan(order: Order) -> Plan:
    """Plan what `build` would do, by parsing the graph. EngineError if TensorRT does not take it."""
    weights = sum(order.onnx.path.with_name(name).stat().st_size for name in order.onnx.manifest["files"])
    with closing(Network(order.targets.api, order.spec, order.onnx.path)) as network:
        network.set_shapes({name: [sizes[2]] * 3 for name, sizes in order.shapes.items()})
        return Plan(order, network.network.num_layers, weights, network.activation_bytes())


def build(order: Order, report: Report) -> Artifact:
    """Build the engine and write it beside its graph; report is called with the share done.

    EngineError repeats TensorRT's reasons, or says that the disk is full; MemoryError. Those, and Ctrl-C,
    which ends the build at its next step, leave nothing behind.
    """
    folder, api, started = order.onnx.path.parent, order.targets.api, time.perf_counter()
    try:
        with (
            order.targets.current(),
            closing(Network(api, order.spec, order.onnx.path)) as network,
            writing(folder, order.label, order.built_from()) as draft,
        ):
            network.set_shapes(order.shapes)
            network.configure(order.settings)
            with draft.path.open("wb") as file:
                file.write(_compile(network, order, report))
            warnings = [text for level, text in api.take_messages() if level == "WARNING"]
            draft.facts.update(
                seconds=round(time.perf_counter() - started, 1),
                layers=network.network.num_layers,
                header=_header(order, draft.path),
                warnings=warnings,
            )
    except OSError as error:
        raise EngineError(
            f"cannot write {order.label} to {folder}: {error.strerror}; make room, or set VIVACE_BUILT"
        ) from error
    return draft.artifact


def _compile(network: Network, order: Order, report: Report) -> object:
    """Compile the engine to bytes. Classic TensorRT times kernels on this GPU; TensorRT-RTX times none."""
    api, config = order.targets.api, network.config
    cache = None
    if api.is_rtx:
        _set_capabilities(order.targets, config)
    else:
        cache = TimingCache(api, config, order.onnx.path.parent, order.targets.here)
    network.monitor = config.progress_monitor = progress_monitor(api.trt, report)

    def compiling() -> object:
        with order.targets.current():  # which is each thread's own, and this is another thread
            return network.builder.build_serialized_network(network.network, config)

    engine = interruptible(compiling, network.monitor)
    api.checked(engine, f"{order.label} cannot be built")
    if cache:
        cache.keep()
    return engine


def _set_capabilities(targets: Targets, config: object) -> None:
    config.num_compute_capabilities = len(targets.capabilities)
    for index, number in enumerate(targets.capabilities):
        accepted = config.set_compute_capability(capability(targets.api, number), index)
        targets.api.checked(accepted, f"{targets.api} refuses the target sm_{number}")


def _header(order: Order, path: Path) -> str:
    """Ask TensorRT-RTX for its verdict on the file here, where it need not run; classic has none."""
    api = order.targets.api
    if not api.is_rtx:
        return "not checked"
    runtime = api.create(api.trt.Runtime)
    with path.open("rb") as file:
        validity, reasons = verdict(api, runtime, file.read(runtime.engine_header_size))
    if "MALFORMED_ENGINE" in reasons:
        raise api.failure(f"{order.label}: {api} does not know its own engine")
    return ": ".join([validity, *reasons])
