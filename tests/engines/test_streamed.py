"""A large model's graph is traced without its weights: the same graph, and memory does not grow with it."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from safetensors.torch import save_file

import build_trt
import export_onnx
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.errors import EngineError
from engines.onnx import export_streamed as streamed
from engines.onnx.attention_form import opset_for
from engines.onnx.export import ExportError, Target
from engines.onnx.export import export_onnx as export_whole
from engines.onnx.export_streamed import bare_twin, export_streamed
from engines.onnx.parity import draw
from engines.spec import Cadence, ComponentSpec, TensorSpec
from generators.checkpoint import weightless
from generators.contract import load_generator
from generators.wan.config import TransformerSize
from generators.wan.load import fun_control_network
from optimize.precision.quantize_streamed import BLOCKS
from optimize.streamed_rewrites import BARE

ROOT = Path(__file__).parents[2]


def write_fun_control(folder, heads, layers, zeros=False):
    """A checkpoint of Wan2.1-Fun-Control, in bf16 as published, narrow and shallow, for 32x32 pixels."""
    size = TransformerSize(heads, 64, 48, 16, 16, 256, 256 * heads, layers)
    with weightless():
        shapes = {name: tensor.shape for name, tensor in fun_control_network(size).state_dict().items()}
    torch.manual_seed(0)
    part = folder / "transformer"
    part.mkdir(parents=True)
    draw = torch.zeros if zeros else torch.randn
    save_file({name: (draw(shape) / shape[-1] ** 0.5).bfloat16() for name, shape in shapes.items()},
              part / "model.safetensors")
    (part / "config.json").write_text(json.dumps(asdict(size)))
    save_file({"prompt": torch.randn(4, 16), "negative": torch.randn(4, 16)}, folder / "prompt.safetensors")
    (folder / "vivace.toml").write_text("width = 32\nheight = 32\nframes = 5\noverlap = 1\n")
    return f"wan-fun-control={folder}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_generator(write_fun_control(tmp_path_factory.mktemp("wan") / "w", heads=2, layers=2))


def export(model, folder, precision, component="denoise", **options):
    return export_streamed(model, component, precision, Target(folder, lambda text: None),
                           opset_for(precision), BLOCKS, BARE, **options)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """A folder for VIVACE_BUILT with the model in fp32, fp16 and int8, and its artifacts by precision."""
    folder = tmp_path_factory.mktemp("streamed")
    return folder, {each: export(model, folder / model.name, each) for each in ("fp32", "fp16", "int8")}


def weights_of(path):
    return {each.name: each for each in onnx.load(path, load_external_data=False).graph.initializer}


def test_it_computes_what_the_graph_exported_whole_does(model, exported, tmp_path):
    spec = model.components["denoise"]
    inputs = draw(spec, {}, seed=3)
    flows = [OnnxRuntimeEngine(spec, path)(**inputs)["flow"] for path in (
        exported[1]["fp32"].path,
        export_whole(Whole(model), "denoise", Target(tmp_path, lambda text: None)).path)]
    np.testing.assert_allclose(*flows, atol=1e-5 * float(np.abs(flows[0]).max()))


def test_rotary_embeddings_pair_halves_and_attention_is_one_node_in_half_precision(exported):
    for precision, attentions in (("fp32", 0), ("fp16", 2 * 3)):  # to itself, the prompt and the picture
        artifact = exported[1][precision]
        nodes = onnx.load(artifact.path, load_external_data=False).graph.node
        kinds = Counter(node.op_type for node in nodes)
        assert kinds["Attention"] == attentions and kinds["ScatterND"] == 0
        assert kinds["Softmax"] == 2 * 3 - attentions
        facts = artifact.manifest["facts"]
        assert facts["rewrites"] == ["2 x rotary embedding of halves"] and facts["nodes"] == kinds.total()


class Whole:
    """The model with its networks in fp32, as the exporter for small ones needs them."""

    def __init__(self, model):
        self.name, self.components, self.fingerprint_files, self._model = "whole", model.components, (), model

    def build(self, component):
        return self._model.build(component).float()


@pytest.mark.parametrize(("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("fp32", TensorProto.FLOAT)])
def test_weights_lie_beside_the_graph_in_the_precision_but_for_those_that_stay_in_fp32(
    exported, precision, kind
):
    artifact = exported[1][precision]
    weights = weights_of(artifact.path)
    large = [each for each in weights.values() if np.prod(each.dims) > streamed.SMALL]
    assert large and all(each.data_location == TensorProto.EXTERNAL for each in large)
    assert {e.data_type for n, e in weights.items() if "ffn" in n and "weight" in n} == {kind}
    assert {e.data_type for n, e in weights.items() if "time_embedder" in n} == {TensorProto.FLOAT}
    assert set(artifact.manifest["files"]) == {artifact.path.name, f"{artifact.path.name}.data"}
    assert artifact.manifest["facts"]["parity"]["flow"]["cosine"] > 0.9999


def test_what_was_built_from_the_same_is_kept(model, exported):
    folder, artifacts = exported
    told, first = [], artifacts["fp16"]
    target = Target(folder / model.name, told.append)
    again = export_streamed(model, "denoise", "fp16", target, 23, None, BARE)
    assert again.path == first.path and "kept" in told[0]
    assert artifacts["fp32"].path != first.path


def test_eight_bits_are_in_the_blocks_only_and_near_torch(exported):
    artifact = exported[1]["int8"]
    eight = [n for n, e in weights_of(artifact.path).items() if e.data_type == TensorProto.INT8 and e.dims]
    assert len([name for name in eight if name.endswith("int8")]) == 2 * 8  # q k v o, q o, and two of ffn
    assert all("network.blocks." in name for name in eight)
    assert artifact.manifest["facts"]["parity"]["flow"]["cosine"] > 0.99


def test_tensorrt_builds_it_in_fp16_and_int8(model, exported, monkeypatch, run_main):
    monkeypatch.setenv("VIVACE_BUILT", str(exported[0]))
    for precision in ("fp16", "int8"):
        answer = run_main(build_trt, "--component", "denoise", "--precision", precision, "--target", "89",
                          "--generator", f"{model.name}={model.files.folder}")
        assert answer.status == 0 and f"denoise-{precision}" in answer.out, answer.err


def test_a_large_generator_is_exported_this_way_by_the_script(model, tmp_path, monkeypatch, run_main):
    monkeypatch.setattr(streamed, "LARGE", 1 << 20)
    answer = run_main(export_onnx, "--generator", f"{model.name}={model.files.folder}", "--component",
                      "denoise", "--precision", "fp16", "--out", tmp_path, "--json")
    assert answer.status == 0 and json.loads(answer.out)["against"].startswith("torch in fp32"), answer.err
    refused = run_main(export_onnx, "--generator", f"{model.name}={model.files.folder}", "--component",
                       "denoise", "--precision", "fp8", "--out", tmp_path)
    assert refused.status == 4 and "large model; choose fp32, fp16, bf16, int8, not fp8" in refused.err


class Tied(torch.nn.Module):
    """One weight used as it is, transposed, and by another name."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.rand(128, 128))
        self.again = self.table

    def forward(self, x):
        x = x.to(self.table.dtype)
        return (x @ self.table + x @ self.again.T).float()


class Small:
    """A model of one component."""

    name, fingerprint_files = "small", ()
    tensor = TensorSpec("x", (2, 128))
    components = {"denoise": ComponentSpec("denoise", Cadence.STEP, (tensor,), (TensorSpec("y", (2, 128)),))}

    def __init__(self, module):
        self.build = lambda component: module


@pytest.mark.parametrize(("limit", "why"), [
    ("MOST_WORK", "a call is 0 TFLOP"), ("MOST_BYTES", "are 0 GB in fp32")])
def test_what_a_processor_cannot_compute_is_exported_and_said_to_be_not_compared(
    tmp_path, monkeypatch, limit, why
):
    model = Small(Tied())
    monkeypatch.setattr(streamed, limit, 0)
    facts = export(model, tmp_path, "fp16").manifest["facts"]
    assert facts["parity"] is None and facts["against"].startswith("nothing: ") and why in facts["against"]
    if limit == "MOST_BYTES":
        monkeypatch.setattr(streamed, "trace_bare", lambda *given: pytest.fail("minutes too late"))
    with pytest.raises(EngineError, match=f"denoise cannot be calibrated on a processor: .*{why}"):
        export(model, tmp_path, "int8")


class Masked(torch.nn.Module):
    """Attention in which each query sees the first half of the tokens: one row is the mask of all."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.rand(128, 128) / 11)

    def forward(self, x):
        tokens = (x.to(self.table.dtype) @ self.table).reshape(1, 4, 8, 8)
        mask = -1e4 * (torch.arange(8, device=x.device) >= 4).to(tokens.dtype)[None, None, None]
        mixed = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, mask)
        return mixed.reshape(2, 128).float()


def test_attention_with_one_row_of_a_mask_is_exported_as_it_is_and_compared_by_rows(tmp_path):
    artifact = export(Small(Masked()), tmp_path, "fp16")
    assert artifact.manifest["facts"]["parity"]["y"]["cosine"] > 0.99999
    graph = onnx.load(artifact.path).graph
    assert [node.op_type for node in graph.node].count("Attention") == 1
    assert not [node for node in graph.node if node.op_type == "Expand"], "no rows for TensorRT to read"
    assert not [path for path in artifact.path.parent.iterdir() if "masks" in path.name]


def test_a_weight_that_is_used_in_several_ways_is_right_in_each(tmp_path):
    facts = export(Small(Tied()), tmp_path, "fp32").manifest["facts"]
    assert facts["parity"]["y"]["cosine"] > 0.999999
    assert facts["tflop"] == round(2 * 2 * 2 * 128 * 128 / 1e12, 4)


def test_bfloat16_which_no_processor_runs_is_exported_and_said_to_be_not_compared(tmp_path):
    facts = export(Small(Tied()), tmp_path, "bf16").manifest["facts"]
    assert facts["parity"] is None and "no kernels for bfloat16" in facts["against"]


def test_a_weight_that_fp16_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    module = Tied()
    module.table.data *= 1e6
    with pytest.raises(EngineError, match="too large for fp16, or not finite; export in bf16 or fp32"):
        export(Small(module), tmp_path, "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_traced_is_an_export_error(tmp_path):
    class Branch(Tied):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ExportError, match="denoise: torch cannot export it"):
        export(Small(Branch()), tmp_path, "fp32")


def test_a_twin_holds_small_weights_and_no_large_ones():
    module = torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.LayerNorm(128))
    twin, weights = bare_twin(module, torch.float16)
    assert list(weights) == [twin[0].weight.data_ptr()]
    assert torch.equal(weights[twin[0].weight.data_ptr()].read(), module[0].weight.half())
    assert torch.equal(twin[0].bias, module[0].bias.half())
    assert twin[0].weight.dtype == torch.float16 and module[0].weight.dtype == torch.float32


PEAK = """
import sys
from pathlib import Path
from engines.onnx import export_streamed as streamed
from engines.onnx.export import OPSET, Target
from generators.contract import load_generator

streamed.MOST_WORK = 0  # nothing is compared, which takes memory
for name in sys.argv[2:]:
    streamed.export_streamed(load_generator(name), "denoise", "fp16",
                             Target(Path(sys.argv[1], name[-1]), lambda text: None), OPSET)
    status = Path("/proc/self/status").read_text().splitlines()
    print(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; pages are given back there")
def test_peak_memory_is_flat_in_the_number_of_blocks(tmp_path):
    layers = (1, 3)
    names = [write_fun_control(tmp_path / str(each), heads=18, layers=each, zeros=True) for each in layers]
    files = [tmp_path / str(each) / "transformer" / "model.safetensors" for each in layers]
    sizes = [file.stat().st_size >> 20 for file in files]
    # In one process, whose peak so far is printed; getrusage would tell ours, which a child inherits.
    answer = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path / "out"), *names], cwd=ROOT,
                            capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    peaks = [int(line) for line in answer.stdout.splitlines()[-2:]]  # MiB
    assert sizes[1] - sizes[0] > 80
    # What grows is the traced graph, 7 MiB a block of 46; weights held in memory would add theirs.
    assert peaks[1] - peaks[0] < 0.4 * (sizes[1] - sizes[0]), peaks
