"""The tiny MimicMotion the whole way: graphs, half precision and 8 bits, TensorRT-RTX, a run, the judge."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest

import bench.__main__ as bench
import infer
import optimize.precision.convert
from bench.frame_metrics import psnr
from bench.judge import Judge
from bench.similarity import load_extractor
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.backends.torch_backend import TorchEngine
from engines.onnx.export import Target, export_onnx
from engines.onnx.parity import draw, extreme_sizes
from engines.tensorrt.build import build, place_orders
from engines.tensorrt.network import Settings
from engines.tensorrt.targets import resolve_targets
from generators.contract import FULL, SHALLOW
from optimize.exact_rewrites import EXACT
from optimize.precision.convert import Calibration, convert
from pipeline.video.reader import read
from tests.extractors import write_extractor
from tests.tiny_mimicmotion import write_tiny

# The autoencoder's encoder and the times stay in fp32.
HALF = ("image_embed", "pose", "denoise", FULL, SHALLOW, "decode")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The generator, a folder for VIVACE_BUILT with its graphs, and these by component and precision."""
    generator = write_tiny(tmp_path_factory.mktemp("mimic"), shallow=True)
    folder = tmp_path_factory.mktemp("built")
    target = Target(folder / generator.name, lambda text: None)
    graphs = {(name, "fp32"): export_onnx(generator, name, target, rewriting=EXACT)
              for name in generator.components}
    with pytest.MonkeyPatch.context() as patch:
        # Each layer alone is measured in test_precision.py; here it would take a hundred sessions.
        patch.setattr(optimize.precision.convert, "measure_sensitivity",
                      lambda model, layers, *others, **named: dict.fromkeys(layers, 0.0))
        for name, precision in [*((name, "fp16") for name in HALF), ("denoise", "int8")]:
            spec = generator.components[name]
            noise = [draw(spec, sizes, 0) for sizes in extreme_sizes(spec)]
            calibration = Calibration({}, lambda noise=noise: noise)
            graphs[name, precision] = convert(graphs[name, "fp32"], spec, precision, calibration, target)
    return generator, folder, graphs


@pytest.fixture(scope="module")
def denoiser(built):
    """The denoiser's fp32 graph."""
    return onnx.load(built[2]["denoise", "fp32"].path).graph


def test_every_component_exports_with_the_names_and_dims_of_its_spec(built):
    generator, _, graphs = built
    for name, spec in generator.components.items():
        graph = onnx.load(graphs[name, "fp32"].path).graph
        for values, tensors in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
            found = {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim)
                     for v in values}
            assert found == {tensor.name: tensor.dims for tensor in tensors}


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_a_batch_of_two_computes_like_torch_at_every_length_of_a_window(built, frames):
    """What the exporter's repeat_interleave gets wrong, and a batch of one would not show."""
    generator, _, graphs = built
    spec = generator.components["denoise"]
    engine = OnnxRuntimeEngine(spec, graphs["denoise", "fp32"].path)
    inputs = draw(spec, {"b": 2, "f": frames}, seed=9)
    wanted = TorchEngine(spec, generator.build("denoise"))(**inputs)["v"]
    np.testing.assert_allclose(engine(**inputs)["v"], wanted, atol=1e-5)
    single = [engine(**{name: array[i:i + 1] if array.shape[0] == 2 else array
                        for name, array in inputs.items()})["v"] for i in range(2)]
    np.testing.assert_allclose(np.concatenate(single), wanted, atol=1e-5)


def test_the_graph_has_no_attention_to_the_picture_and_no_layer_of_the_time(denoiser):
    names = [node.name for node in denoiser.node]
    weights = [weight.name for weight in denoiser.initializer]
    for gone in ("attn2", "norm2", "time_emb_proj", "time_embedding", "time_pos_embed", "pose_net"):
        hidden = [name for name in (*names, *weights) if gone in name.replace("res_block.norm2", "")]
        assert hidden == [], gone
    kinds = Counter(node.op_type for node in denoiser.node)
    assert kinds["Softmax"] == 2 * 4  # within frames and along them, in four attention blocks; else 16
    assert not {"Sin", "Cos", "Tile"} & set(kinds)


def test_8_bits_leave_the_first_and_last_layer_and_attention_products_alone(built, denoiser):
    model = onnx.load(built[2]["denoise", "int8"].path).graph
    eight = {node.output[0] for node in model.node if node.op_type == "DequantizeLinear"}
    quantised = {node.name for node in model.node if eight & set(node.input)}
    layers = {node.name for node in denoiser.node
              if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in
              {weight.name for weight in denoiser.initializer}}
    assert layers - quantised == {"unet.conv_in/Conv", "unet.conv_out/Conv"}
    assert quantised <= layers and len(quantised) > 90


def test_half_precision_keeps_pictures_near_and_knows_when_it_fails(built):
    generator, _, graphs = built
    facts = graphs["decode", "fp16"].manifest["facts"]["parity"]
    assert facts["pixels"]["max_error"] <= 2 and facts["sizes"]["max_error"] < 1e-2
    spec = generator.components["decode"]
    engine = OnnxRuntimeEngine(spec, graphs["decode", "fp16"].path)
    sizes = engine(latents=np.full((2, 4, 8, 8), 1e6, np.float32))["sizes"]
    assert not np.isfinite(sizes).all()


@pytest.mark.parametrize(("component", "precision", "fixed"), [
    *((name, "fp16", True) for name in HALF), ("encode", "fp32", True), ("embed", "fp32", True),
    ("denoise", "fp16", False), ("denoise", "int8", True)])
def test_every_component_builds_with_tensorrt_rtx(built, component, precision, fixed):
    """The denoiser with free sizes too, for windows of every length and both branches in a batch."""
    generator, folder, _ = built
    order = place_orders(generator, {component: precision}, folder / generator.name, resolve_targets("89"),
                         Settings(fixed=fixed))[0]
    facts = build(order, lambda share: None).manifest["facts"]
    assert facts["bytes"] > 100_000 and facts["layers"] > 10


def test_infer_makes_on_graphs_the_videos_that_torch_makes_and_the_judge_agrees(
        built, make_data, run_main, monkeypatch, tmp_path):
    generator, folder, _ = built
    monkeypatch.setenv("VIVACE_BUILT", str(folder))
    kind = f"mimicmotion={generator.fingerprint_files[0].parent}"
    data = make_data({"a": 4, "b": 9}, size=(64, 64))
    answers = {backend: run_main(infer, "--data", data, "--out", tmp_path / backend, "--generator", kind,
                                 "--backend", backend, "--lossless", "--json")
               for backend in ("torch", "onnxruntime")}
    assert [answer.status for answer in answers.values()] == [0, 0], answers["onnxruntime"].err
    lines = [json.loads(line) for line in answers["onnxruntime"].out.splitlines()]
    assert [line["frames"] for line in lines] == [4, 9] and lines[0]["size"] == [64, 64]
    judge = Judge([load_extractor(str(write_extractor(tmp_path / "extractors")))])
    for name in "ab":
        base, made = (read(tmp_path / backend / f"{name}.mp4") for backend in ("torch", "onnxruntime"))
        assert psnr(made.frames.astype(np.int16) - base.frames) >= 50
        found = judge.compare(base, made, read(data / "videos" / f"{name}.mp4").frames)
        assert min(each["value"] for each in found["cosine"].values()) > 0.9999


def test_a_recipe_with_action_h_runs_on_graphs_as_in_torch_and_the_judge_agrees(
        built, make_data, run_main, monkeypatch, tmp_path):
    generator, folder, graphs = built
    for name in (FULL, SHALLOW):
        facts = graphs[name, "fp16"].manifest["facts"]["parity"]
        assert min(output["cosine"] for output in facts.values()) > 0.999
    monkeypatch.setenv("VIVACE_BUILT", str(folder))
    kind = f"mimicmotion={generator.fingerprint_files[0].parent}"
    data = make_data({"a": 4, "b": 9}, size=(64, 64))
    (tmp_path / "h.toml").write_text('[steps]\nactions = "FHH"\n')
    for backend, precision in (("torch", "fp32"), ("onnxruntime", f"fp32,{FULL}=fp16,{SHALLOW}=fp16")):
        out = data / "outputs" if backend == "torch" else tmp_path / "out"
        ran = run_main(infer, "--generator", kind, "--data", data, "--out", out, "--backend", backend,
                       "--precision", precision, "--recipe", tmp_path / "h.toml", "--lossless")
        assert ran.status == 0, ran.err
    judged = run_main(bench, "--data", data, "--candidate", tmp_path / "out", "--out", tmp_path / "report",
                      "--json")
    assert judged.status == 0, judged.err
    found = [video["metrics"]["psnr"] for video in json.loads(judged.out)["runs"][0]["videos"]]
    assert len(found) == 2 and min(found) > 50
