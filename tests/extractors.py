"""A feature extractor for tests: the colours of a coarse grid, as an ONNX graph of frames or of clips."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from engines.artifact import file_sha256

SIZE = (32, 48)


def write_extractor(folder, name="grid", kind="frames", **changes):
    """grid.json and grid.onnx, and pictures for the self-test, in folder; returns the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = SIZE
    frames = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 3])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "grey"], ["colours"]),
        helper.make_node("Transpose", ["colours"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["grid"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["grid"], ["features"]),
        helper.make_node("ReduceMean", ["features", "axis"], ["clip"], keepdims=1),
    ]
    weights = [helper.make_tensor("grey", TensorProto.FLOAT, [], [127.5]),
               helper.make_tensor("axis", TensorProto.INT64, [1], [0])]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 72]),
               helper.make_tensor_value_info("clip", TensorProto.FLOAT, [1, 72])]
    graph = helper.make_graph(nodes, name, [frames], outputs, weights)
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    spec = {"name": name, "onnx": path.name, "sha256": file_sha256(path), "kind": kind, "size": SIZE,
            "input": "pixels", "output": "clip" if kind == "clip" else "features", "licence": "CC0",
            "source": "made by a test", "resize": "box"}
    if kind == "clip":
        spec["frames_output"] = "features"
    described = folder / f"{name}.json"
    described.write_text(json.dumps({**spec, **changes}))
    (folder / "self_test").mkdir(exist_ok=True)
    for letter, seed in (("a", 1), ("b", 2)):
        Image.fromarray(picture(seed)).save(folder / "self_test" / f"{letter}.png")
    return described


def picture(seed, width=64, height=96):
    """Blocks of random colours, (H, W, 3)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))
