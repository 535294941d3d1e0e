"""The plain engines: the base model's own sampling, exported or compiled by others' tools."""

from __future__ import annotations

from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator


def _no_knobs(generator: Generator) -> Knobs:
    return {}


def _as_it_is(generator: Generator) -> Generator:
    return generator


TORCH_COMPILE = Rival("torch-compile", "torch.compile; PyTorch, BSD-3-Clause", _no_knobs, _as_it_is,
                      backends=("torch-compile",))  # fmt: skip
ONNXRUNTIME = Rival("onnxruntime", "ONNX Runtime; MIT", _no_knobs, _as_it_is,
                    backends=("onnxruntime", "onnxruntime-tensorrt"))  # fmt: skip
OPENVINO = Rival("openvino", "OpenVINO; Apache-2.0", _no_knobs, _as_it_is, backends=("openvino",))
