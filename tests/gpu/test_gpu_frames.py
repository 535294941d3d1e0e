"""Every backend on the GPU shows what the base model shows: in a row, side by side, at any size."""

import threading

import numpy as np
import pytest
import torch

from bench.frame_metrics import psnr, temporal_error
from engines.backends.torch_backend import TorchEngine
from engines.onnx.parity import draw

pytestmark = pytest.mark.gpu

# PSNR in dB and temporal error in levels. About 8 dB below what processors give in the same precision.
LEAST = {
    "torch:fp32": (75, 0.05), "torch:fp16": (48, 0.8), "torch:bf16": (44, 1.0),
    "torch-compile:fp16": (48, 0.8), "resident:fp16": (48, 0.8), "steps:fp16": (48, 0.8),
    "onnxruntime:fp32": (75, 0.05), "onnxruntime:fp16": (55, 0.3), "onnxruntime-tensorrt:fp16": (50, 0.5),
    "tensorrt:fp16": (50, 0.5),
}
ALIKE = 60  # dB between two runs of the same: GPUs may add up in another order


@pytest.mark.parametrize("variant", LEAST)
def test_the_frames_are_those_of_torch_on_a_processor(stage, variant):
    error = stage.frames(variant) - stage.base()
    least, most = LEAST[variant]
    assert psnr(error) >= least and temporal_error(error) <= most


@pytest.mark.parametrize("variant", LEAST)
def test_a_request_leaves_nothing_for_the_next(stage, variant):
    first, other, again = (stage.frames(variant, request) for request in (0, 1, 0))
    assert psnr(again - first) >= ALIKE > psnr(other - first)


@pytest.mark.parametrize("variant", ["torch:fp16", "onnxruntime:fp16", "tensorrt:fp16"])
def test_two_threads_on_one_gpu_do_not_mix_their_requests(stage, variant):
    alone = [stage.frames(variant, request) for request in (0, 1)]
    together = [None, None]

    def make(request):
        with torch.cuda.stream(torch.cuda.Stream()):
            together[request] = stage.frames(variant, request)

    threads = [threading.Thread(target=make, args=(request,)) for request in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(psnr(a - b) for a, b in zip(alone, together, strict=True)) >= ALIKE


@pytest.mark.parametrize(("variant", "levels"), [
    ("torch:fp32", 1), ("torch-compile:fp16", 6), ("onnxruntime:fp32", 1)])
def test_another_shape_and_the_first_again_give_what_torch_gives(stage, variant, levels):
    spec = stage.generator.components["decode"]
    reference = TorchEngine(spec, stage.generator.build("decode"))
    engine = stage.engines(variant)["decode"]
    for seed, frames in enumerate((8, 3, 8, 1, 3)):
        inputs = draw(spec, {"n": frames}, seed)
        error = engine(**inputs)["pixels"].astype(np.float32) - reference(**inputs)["pixels"]
        assert np.abs(error).max() <= levels, f"{frames} frames"


def test_a_tensorrt_engine_captures_a_graph_anew_for_another_shape(stage, tmp_path):
    from engines.backends.tensorrt_backend import start, why_not
    from engines.onnx.export import Target, export_onnx
    from engines.tensorrt.build import build, place_orders
    from engines.tensorrt.network import Settings
    from engines.tensorrt.targets import resolve_targets

    if why_not("cuda"):
        pytest.skip(why_not("cuda"))
    presenter = stage.generator
    export_onnx(presenter, "decode", Target(tmp_path, lambda text: None))
    (order,) = place_orders(presenter, {"decode": "fp32"}, tmp_path, resolve_targets("gpu"),
                            Settings(False, 3, None))
    build(order, lambda share: None)
    engine = start(presenter, "decode", "fp32", "cuda", tmp_path)
    reference = TorchEngine(presenter.components["decode"], presenter.build("decode"))
    try:
        for seed, frames in enumerate((8, 8, 8, 3, 3, 3, 8, 8)):  # plain, captured, replayed
            inputs = draw(presenter.components["decode"], {"n": frames}, seed)
            error = engine(**inputs)["pixels"].astype(np.float32) - reference(**inputs)["pixels"]
            assert np.abs(error).max() <= 1, f"call {seed}, {frames} frames"
    finally:
        engine.close()
