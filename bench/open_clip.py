"""Export the visual tower of an open_clip checkpoint as an extractor: an ONNX graph and its description.

Only this file needs open_clip, and only to export; judging runs the graph. Without a checkpoint there is no
extractor: open_clip itself would go on with random weights. No self-test finds those out: a random ViT-B-32
has cosines of 0.4 to 0.5 between two people, as if it knew them apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.described import ExtractorError
from engines.artifact import file_sha256

if TYPE_CHECKING:
    import torch

OPSET = 20
CLOSE = 1e-4  # by which a cosine of the graph's features may differ from open_clip's own


def export_open_clip(name: str, model: str, checkpoint: Path, folder: Path) -> Path:
    """Write <name>.onnx and <name>.json to folder, checked against open_clip on random pictures.

    model: open_clip's name of the architecture, with its QuickGELU variant where the checkpoint is OpenAI's,
    which a file does not tell. ExtractorError: open_clip cannot be imported, the checkpoint is of another
    model or was never trained, or the graph computes something else. Frames are squashed to the model's
    square, not cropped: its own centre crop sees only the middle of a portrait.
    """
    tower, visual = _load(model, checkpoint)
    height, width = _pair(visual.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / f"{name}.onnx"
    _export(tower, graph, (height, width))
    _check(tower, graph, (height, width))
    spec = {
        "name": name,
        "onnx": graph.name,
        "sha256": file_sha256(graph),
        "kind": "frames",
        "size": [width, height],
        "fit": "stretch",
        "resize": "bicubic",
        "input": "pixels",
        "layout": "NCHW",
        "dtype": "float32",
        "mean": list(map(float, visual.image_mean)),
        "std": list(map(float, visual.image_std)),
        "output": "features",
        "licence": "that of the checkpoint; the code is MIT",
        "source": f"open_clip {model}, {checkpoint.name} of SHA-256 {file_sha256(checkpoint)[:12]}",
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return path


def _load(model: str, checkpoint: Path) -> tuple[torch.nn.Module, object]:
    if not checkpoint.is_file():
        raise ExtractorError(f"no checkpoint at {checkpoint}; give the file of the weights")
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # torchvision of another build raises a RuntimeError
        raise ExtractorError(
            f"open_clip cannot be imported ({str(error).splitlines()[0]}); run: pip install open-clip-torch, "
            "with a torchvision that was built for this torch"
        ) from error
    if model not in open_clip.list_models():
        raise ExtractorError(f"open_clip knows no model {model!r}; see open_clip.list_models()")
    try:
        whole = open_clip.create_model(model, pretrained=str(checkpoint), require_pretrained=True)
    except RuntimeError as error:
        raise ExtractorError(f"{checkpoint} is not a {model}: {str(error).splitlines()[0]}") from error
    if _untrained(whole.visual):
        raise ExtractorError(f"{checkpoint} was never trained: its normalisation layers are as they begin")
    return whole.visual.eval(), whole.visual


def _untrained(tower: torch.nn.Module) -> bool:
    """Return whether every normalisation scales by exactly 1, with which it begins and no training ends."""
    import torch

    kinds = (torch.nn.LayerNorm, torch.nn.BatchNorm2d)
    scales = [layer.weight for layer in tower.modules() if isinstance(layer, kinds)]
    return bool(scales) and all(bool((scale == 1).all()) for scale in scales)


def _export(tower: torch.nn.Module, path: Path, size: tuple[int, int]) -> None:
    import torch

    from engines.onnx.export import quiet

    with quiet(), torch.inference_mode():
        torch.onnx.export(
            tower,
            (torch.zeros(2, 3, *size),),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},),
            external_data=False,
            verbose=False,
        )


def _check(tower: torch.nn.Module, graph: Path, size: tuple[int, int]) -> None:
    import onnxruntime
    import torch

    pixels = np.random.default_rng(0).standard_normal((3, 3, *size)).astype(np.float32)
    with torch.inference_mode():
        wanted = tower(torch.from_numpy(pixels)).numpy().astype(np.float64)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    found = session.run(["features"], {"pixels": pixels})[0].astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    apart = float((1 - (wanted * found).sum(1) / lengths).max())
    if not apart < CLOSE:
        raise ExtractorError(f"the graph's features differ from open_clip's by a cosine of {apart:.2g}")


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
