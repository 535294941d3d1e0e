"""Which graphs have attention as one node, which TensorRT reads them, and what it builds of them."""

from types import SimpleNamespace

import onnx
import pytest
from onnx import TensorProto, helper

from engines.artifact import Label, StaleArtifact, fingerprint, writing
from engines.onnx.attention_form import opset_for
from engines.precision import PRECISIONS
from engines.spec import Cadence, ComponentSpec, TensorSpec
from engines.tensorrt.artifact import find_graph
from engines.tensorrt.build import Order, build
from engines.tensorrt.network import Settings
from engines.tensorrt.targets import resolve_targets

TENSORS = [TensorSpec(name, (1, 2, 16, 32)) for name in "qkvy"]
SPEC = ComponentSpec("net", Cadence.STEP, tuple(TENSORS[:3]), (TENSORS[3],))


def test_graphs_for_processors_have_products_and_half_precision_attention_unless_an_opset_is_asked_for():
    assert {each: opset_for(each) for each in PRECISIONS} == {
        "fp32": 20, "int8-fp32": 20, "fp16": 23, "bf16": 23, "int8": 20, "fp8": 20}
    assert opset_for("fp16", 20) == 20 and opset_for("fp32", 23) == 23


def test_attention_in_fp32_which_has_no_fused_kernel_is_built_of_several(tmp_path):
    values = [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.dims) for each in TENSORS]
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], scale=1.0)
    model = helper.make_model(helper.make_graph([node], "g", values[:3], values[3:]),
                              opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    with writing(tmp_path, Label("net", "fp32", ".onnx"), {}) as draft:
        onnx.save(model, draft.path)
    made = build(Order(SPEC, "fp32", draft.artifact, resolve_targets("89"), Settings()), lambda share: None)
    assert made.path.stat().st_size > 10_000


def test_a_tensorrt_that_reads_no_attention_takes_the_graph_without_it_and_asks_for_it(tmp_path):
    model = SimpleNamespace(components={"net": SPEC}, fingerprint_files=())
    old, new = (SimpleNamespace(flavour="tensorrt", version=each) for each in ("10.13.3.9", "10.14.1.48"))
    built_from = {"component": "net", "spec": SPEC.described(), "weights": fingerprint(())}
    for opset in (20, 23):  # the newest last
        with writing(tmp_path, Label("net", "fp16", ".onnx"), {**built_from, "opset": opset}) as draft:
            draft.path.write_bytes(bytes([opset]))
    found = [find_graph(tmp_path, model, "net", "fp16", api) for api in (old, new)]
    assert [graph.manifest["built_from"]["opset"] for graph in found] == [20, 23]
    found[0].path.with_name(f"{found[0].path.name}.json").unlink()
    with pytest.raises(StaleArtifact, match=r"opset was 23 when it was built, is 20 here\n"
                                            r"run: python export_onnx.py .* --precision fp16 --opset 20 "):
        find_graph(tmp_path, model, "net", "fp16", old)
