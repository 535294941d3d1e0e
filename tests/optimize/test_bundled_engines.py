"""TensorRT-RTX builds every component of the bundled presenter, without a GPU, for all its targets."""

import json

import onnx
import pytest

from engines.artifact import Label, find, writing
from engines.onnx.parity import draw, extreme_sizes
from engines.tensorrt.build import build, place_orders
from engines.tensorrt.network import Settings
from engines.tensorrt.targets import resolve_targets
from generators.contract import load_generator
from optimize.precision.half import find_fp32_layers, to_half
from optimize.precision.layers import find_layers, outer_layers
from optimize.precision.quantize import SCHEMES, quantize
from optimize.precision.ranges import measure_ranges

pytestmark = pytest.mark.slow
PRESENTER = load_generator("presenter")


@pytest.fixture(scope="module")
def folder(graph, tmp_path_factory):
    """The presenter's graphs in fp16 and int8. Ranges are of noise: what is built is what counts here."""
    folder = tmp_path_factory.mktemp("presenter")
    for component, spec in PRESENTER.components.items():
        source = graph(PRESENTER, component)
        ranges = measure_ranges(source.path, [draw(spec, sizes, 0) for sizes in extreme_sizes(spec)[:1]])
        model = onnx.load(source.path)
        layers = [layer.name for layer in find_layers(model.graph, SCHEMES["int8"].layers)]
        inner = [name for name in layers if name not in outer_layers(model.graph)]
        for precision, exact in (("fp16", model), ("int8", quantize(model, ranges, inner, "int8"))):
            half = to_half(exact, "float16", find_fp32_layers(exact, ranges))
            built_from = {**source.manifest["built_from"], "precision": precision}
            with writing(folder, Label(component, precision, ".onnx"), built_from) as draft:
                onnx.save(half, draft.path)
    return folder


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("component", PRESENTER.components)
def test_every_component_builds_for_ampere_ada_and_blackwell(folder, component, precision, fixed):
    targets, settings = resolve_targets("80,86,89,120"), Settings(fixed=fixed)
    order = place_orders(PRESENTER, {component: precision}, folder, targets, settings)[0]
    made = build(order, lambda share: None)
    assert made.manifest["built_from"] == json.loads(json.dumps(order.built_from()))
    assert set(made.manifest["built_from"]["targets"]) == {"sm_80", "sm_86", "sm_89", "sm_120"}
    assert find(folder, order.label, order.built_from(), "").path == made.path
    facts = made.manifest["facts"]
    assert facts["bytes"] > order.onnx.path.stat().st_size / 2 and facts["seconds"] > 0
