"""TensorRT-RTX builds the tiny presenter without a GPU; what is wrong has a reason and leaves nothing."""

import os
import resource
import signal
import sys
import threading
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.artifact import Label, StaleArtifact, file_sha256, find_onnx, fingerprint, writing
from engines.cuda.driver import Gpu
from engines.errors import EngineError
from engines.onnx.export import Target
from engines.onnx.parity import draw, extreme_sizes
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from engines.tensorrt.api import load
from engines.tensorrt.artifact import find_engine, system
from engines.tensorrt.build import build, place_orders, plan
from engines.tensorrt.network import Network, Settings
from engines.tensorrt.targets import resolve_targets
from optimize.precision.convert import Calibration, convert
from tests.graphs import copy_built

TARGETS = "80,86,89,120"
ADA = Gpu("NVIDIA Any", (8, 9), 13000)


@pytest.fixture(scope="module")
def graphs(tiny, tiny_built, tmp_path_factory):
    """A folder with the tiny presenter's graphs in fp32, fp16 and int8, calibrated on noise."""
    folder = copy_built(tiny_built, tmp_path_factory.mktemp("graphs")) / tiny.name
    target = Target(folder, lambda text: None)
    for component, spec in tiny.components.items():
        source = find_onnx(folder, tiny, component, "fp32")
        noise = [draw(spec, sizes, 0) for sizes in extreme_sizes(spec)]
        for precision in ("fp16", "int8"):
            convert(source, spec, precision, Calibration({}, lambda noise=noise: noise), target)
    return target.folder


@pytest.fixture(scope="module")
def engine(tiny, graphs):
    """A dynamic fp16 engine of the tiny encoder for all targets."""
    return make(tiny, graphs, "encode", "fp16")


def order_of(model, folder, component, precision, targets=TARGETS, **settings):
    chosen = {component: precision}
    return place_orders(model, chosen, folder, resolve_targets(targets), Settings(**settings))[0]


def make(model, folder, component, precision, targets=TARGETS, report=lambda share: None, **settings):
    return build(order_of(model, folder, component, precision, targets, **settings), report)


def engine_here(model, folder, component="encode", precision="fp16", gpu=ADA, **toolchain):
    api = SimpleNamespace(**{"flavour": "tensorrt_rtx", "version": load("tensorrt_rtx").version,
                             "is_rtx": True, **toolchain})
    return find_engine(folder, model, component, precision, (api, gpu))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("component", ["encode", "denoise", "decode"])
def test_every_component_builds_for_all_targets_and_its_manifest_says_from_what(
    tiny, graphs, component, precision, fixed
):
    made, spec = make(tiny, graphs, component, precision, fixed=fixed), tiny.components[component]
    best = [[spec.ranges[dim].opt if isinstance(dim, str) else dim for dim in tensor.dims]
            for tensor in spec.inputs]
    was = made.manifest["built_from"]
    assert was["onnx"] == find_onnx(graphs, tiny, component, precision).content
    assert was["weights"] == fingerprint(tiny.fingerprint_files)
    assert was["spec"] == spec.described() and was["precision"] == precision and was["os"] == system()
    assert was["toolchain"] == {"flavour": "tensorrt_rtx", "version": load("tensorrt_rtx").version}
    assert was["targets"] == dict.fromkeys(["sm_80", "sm_86", "sm_89", "sm_120"], "any GPU")
    assert [was["shapes"][tensor.name][1] for tensor in spec.inputs] == best
    assert all((least == most) == fixed for least, _, most in was["shapes"].values())
    facts = made.manifest["facts"]
    assert facts["bytes"] == made.path.stat().st_size > 100_000 and facts["layers"] > 10
    assert made.manifest["files"] == {made.path.name: file_sha256(made.path)}


@pytest.mark.parametrize("target", TARGETS.split(","))
def test_each_target_builds_alone_too_under_a_name_of_its_own(tiny, graphs, target):
    made = make(tiny, graphs, "decode", "int8", target)
    assert made.manifest["built_from"]["targets"] == {f"sm_{target}": "any GPU"}
    assert made.path != make(tiny, graphs, "decode", "int8").path and made.path.is_file()


def test_tensorrt_takes_the_wish_that_activations_are_sized_for_the_shapes_that_run(tiny, graphs):
    for fixed in (True, False):
        order = order_of(tiny, graphs, "decode", "fp16", fixed=fixed)
        with closing(Network(order.targets.api, order.spec, order.onnx.path)) as network:
            network.set_shapes(order.shapes)
            network.configure(order.settings)
            feature = order.targets.api.trt.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10
            assert network.config.get_preview_feature(feature)  # RTX 1.7 has it by itself
        assert order.built_from()["builder"].items() > {"fixed": fixed, "activations": "resized"}.items()


def test_an_engine_is_found_for_each_of_its_targets(tiny, graphs, engine):
    for capability in ((8, 0), (8, 6), (8, 9), (12, 0)):
        assert engine_here(tiny, graphs, gpu=replace(ADA, capability=capability)).path == engine.path


def test_another_gpu_or_toolchain_is_refused_by_name(tiny, graphs, engine):
    hopper = replace(ADA, capability=(9, 0))
    with pytest.raises(StaleArtifact, match=r'targets.sm_90 was null .* is "any GPU" here\nrun: python'):
        engine_here(tiny, graphs, gpu=hopper)
    with pytest.raises(StaleArtifact, match='toolchain.version was "1.7.* is "1.8.0.1" here'):
        engine_here(tiny, graphs, version="1.8.0.1")
    with pytest.raises(StaleArtifact, match='flavour was "tensorrt_rtx" .* is "tensorrt" here.*'
                                            'sm_89 was "any GPU" .* is "NVIDIA Any" here'):
        engine_here(tiny, graphs, flavour="tensorrt", is_rtx=False)


def test_a_changed_weight_is_refused_by_name(tiny, graphs, engine, tmp_path):
    weights = tmp_path / tiny.fingerprint_files[0].name
    weights.write_bytes(tiny.fingerprint_files[0].read_bytes()[:-1] + b"x")
    files = (weights, *tiny.fingerprint_files[1:])
    changed = SimpleNamespace(components=tiny.components, fingerprint_files=files)
    with pytest.raises(StaleArtifact, match=r"encode-fp16-\w+.engine does not fit: weights was"):
        engine_here(changed, graphs)


def test_a_changed_shape_is_refused_by_name(tiny, graphs, engine):
    spec = replace(tiny.components["encode"], ranges={"n": DimRange(1, 4, 16)})
    changed = SimpleNamespace(components={"encode": spec}, fingerprint_files=tiny.fingerprint_files)
    with pytest.raises(StaleArtifact, match=r"spec.ranges.n was \[1, 8, 8\] .* is \[1, 4, 16\] here"):
        engine_here(changed, graphs)


def test_another_graph_and_a_changed_byte_of_it_are_refused_by_name(tiny, graphs, engine):
    graph = find_onnx(graphs, tiny, "encode", "fp16")
    kept = graph.path.read_bytes()
    graph.path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        with pytest.raises(StaleArtifact, match=f"bytes of {graph.path.name} changed"):
            engine_here(tiny, graphs)
    finally:
        graph.path.write_bytes(kept)
    assert engine_here(tiny, graphs).path == engine.path
    other = {**graph.manifest["built_from"], "opset": 19}
    with writing(graphs, Label("encode", "fp16", ".onnx"), other) as new:
        new.path.write_bytes(kept + b"\0")
    try:
        with pytest.raises(StaleArtifact, match=r"encode-fp16-\w+.engine does not fit: onnx was"):
            engine_here(tiny, graphs)
    finally:
        (graphs / new.path.name).with_name(f"{new.path.name}.json").unlink()


def test_a_folder_of_engines_alone_is_enough_and_a_changed_byte_is_refused(tiny, engine, tmp_path):
    for path in (engine.path, engine.path.with_name(f"{engine.path.name}.json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = engine_here(tiny, tmp_path)
    assert found.content == engine.content
    found.path.write_bytes(found.path.read_bytes()[:-1] + b"?")
    with pytest.raises(StaleArtifact, match=f"bytes of {engine.path.name} changed"):
        engine_here(tiny, tmp_path)


def test_progress_rises_to_the_whole(tiny, graphs):
    shares = []
    make(tiny, graphs, "denoise", "fp16", report=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) > 5


@pytest.mark.parametrize(("sent", "raised"), [
    (signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interruption_ends_the_build_at_its_next_step_and_leaves_nothing_behind(
    tiny, graphs, sent, raised
):
    shares, before = [], files(graphs)
    old = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def report(share):
        if not shares:
            os.kill(os.getpid(), sent)
            threading.Event().wait(0.2)  # until the main thread has noticed
        shares.append(share)

    try:
        with pytest.raises(raised):
            make(tiny, graphs, "denoise", "fp32", "80", report=report)
    finally:
        signal.signal(signal.SIGTERM, old)
    assert max(shares) < 0.5 and files(graphs) == before


def test_a_full_disk_is_an_engine_error_and_leaves_nothing_behind(tiny, graphs):
    order, before = order_of(tiny, graphs, "denoise", "fp32", "80"), files(graphs)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(EngineError, match="cannot write denoise-fp32.engine to .*; make room"):
            build(order, lambda share: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(graphs) == before


def test_the_plan_says_what_would_be_built_and_how_large(tiny, graphs):
    before = files(graphs)
    order = order_of(tiny, graphs, "denoise", "fp16")
    planned = plan(order)
    assert planned.weights == order.onnx.path.stat().st_size and planned.layers > 500
    text = str(planned)
    assert "for sm_80, sm_86, sm_89, sm_120, level 3, dynamic shapes" in text
    assert "latents: 1x16x16x6x4 .. 1x16x16x6x4 .. 2x16x16x6x4" in text
    assert files(graphs) == before


SPEC = ComponentSpec("chain", Cadence.STEP, (TensorSpec("x", ("n", 100)),), (TensorSpec("y", ("n", 100)),),
                     {"n": DimRange(1, 2, 5)})


@pytest.fixture
def chain(tmp_path):
    """A function that writes a graph as an artifact of a model of one component, and orders its engine."""
    def order(nodes, spec=SPEC, initializers=(), targets="86"):
        kinds = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "uint8": TensorProto.UINT8}
        ends = [[helper.make_tensor_value_info(tensor.name, kinds[tensor.dtype], tensor.dims)
                 for tensor in side] for side in (spec.inputs, spec.outputs)]
        graph = helper.make_graph(nodes, "chain", *ends, initializer=initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        built_from = {"component": "chain", "spec": spec.described(), "weights": fingerprint(())}
        with writing(tmp_path, Label("chain", "fp32", ".onnx"), built_from) as draft:
            onnx.save(model, draft.path) if nodes else draft.path.write_bytes(b"not a graph")
        model = SimpleNamespace(components={"chain": spec}, fingerprint_files=())
        return order_of(model, tmp_path, "chain", "fp32", targets)
    return order


def test_activations_are_the_most_that_is_alive_at_once(chain):
    row = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["b"])]
    size = 5 * 100 * 4  # at n = 5
    assert plan(chain([*row, helper.make_node("Sigmoid", ["b"], ["y"])])).activations == 2 * size
    assert plan(chain([*row, helper.make_node("Add", ["a", "b"], ["y"])])).activations == 3 * size


@pytest.mark.parametrize(("nodes", "reason"), [
    ([helper.make_node("NonZero", ["x"], ["z"]), helper.make_node("Cast", ["z"], ["y"], to=1)], "NonZero"),
    ([], "chain-fp32-.* cannot be built: .*"),
])
def test_a_graph_that_tensorrt_does_not_take_is_refused_in_its_words(chain, tmp_path, nodes, reason):
    order = chain(nodes)
    before = files(tmp_path)
    with pytest.raises(EngineError, match=reason):
        build(order, lambda share: None)
    assert files(tmp_path) == before


def test_a_graph_of_another_component_is_refused(chain, tmp_path):
    order = chain([helper.make_node("Relu", ["x"], ["y"])])
    other = replace(SPEC, outputs=(TensorSpec("z", ("n", 100)),))
    with pytest.raises(EngineError, match=r"is not a chain: its outputs are \{'y': 'float32'\}"):
        build(replace(order, spec=other), lambda share: None)
    larger = replace(SPEC, inputs=(TensorSpec("x", ("n", 101)),))
    with pytest.raises(EngineError, match=r"x of \[1, 101\] does not fit the graph's \[-1, 100\]"):
        build(replace(order, spec=larger), lambda share: None)


def test_doubles_that_tensorrt_would_turn_into_floats_are_refused(chain):
    spec = replace(SPEC, inputs=(TensorSpec("x", ("n", 100), "float64"),))
    with pytest.raises(EngineError, match="its inputs are {'x': 'float32'}, expected {'x': 'float64'}"):
        build(chain([helper.make_node("Cast", ["x"], ["y"], to=1)], spec), lambda share: None)


def test_uint8_beyond_a_cast_at_the_edge_is_refused_with_what_to_do(chain):
    spec = replace(SPEC, inputs=(TensorSpec("x", (100, "n"), "uint8"),))
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("Cast", ["t"], ["y"], to=1)]
    with pytest.raises(EngineError, match="uint8 may only go from an input into a Cast"):
        build(chain(nodes, spec), lambda share: None)


def test_quantization_with_a_zero_point_is_refused_with_what_to_do(chain):
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])
    zero = onnx.numpy_helper.from_array(np.array(5, np.int8), "zero")
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"])]
    with pytest.raises(EngineError, match="symmetric quantization only"):
        build(chain(nodes, initializers=[scale, zero]), lambda share: None)


def test_a_missing_graph_names_the_command_that_makes_it(tiny, tmp_path):
    with pytest.raises(EngineError, match="run: python export_onnx.py --component denoise --precision fp16"):
        order_of(tiny, tmp_path, "denoise", "fp16")
