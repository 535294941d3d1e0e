"""Train stfn: a clip stays near itself when it is encoded again, and leaves it with each visible defect."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from engines.artifact import file_sha256
from engines.onnx.export import quiet, strip
from lab.extractor.cropped import read_footage
from lab.extractor.defects import Kind
from lab.extractor.stfn import HEIGHT, WIDTH, Stfn, StfnSize
from lab.extractor.stfn_batches import DRAWN, Batch, Near, Scenes
from lab.presenter.dataset import stream
from lab.presenter.train import Plan, train_network

# Distances (1 - cosine): a harmless change may make the first, a defect must make the second, another clip
# the third. The gate lies at 0.03; harmless changes shall stay below 0.005.
HARMLESS, DEFECT, OTHER = 0.001, 0.07, 0.5
COMPRESSED = 0.006  # encoded more coarsely, which the gate shall let pass
# PSNR in dB from which a clip made of latents a little off may be no further away, and how far.
NEARNESS = ((38.0, 0.003), (35.0, 0.006), (33.0, 0.012))


def loss(network: Stfn, batch: Batch) -> Tensor:
    """Return how far distances are beyond their bounds, in natural logarithms: a hundredth counts like a
    tenth.
    """
    whole = network(batch.clip)

    def distances(other: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(_distance(a, b) for a, b in zip(network(other), whole, strict=True))

    near = [distances(each) for each in batch.harmless]
    away = [distances(each) for each in batch.defects]
    other = distances(batch.other)
    of_clips = torch.stack([_below(each[0], HARMLESS) for each in near]).mean()
    of_clips = of_clips + sum(_below(distances(each)[0], COMPRESSED) for each in batch.compressed)
    of_clips = of_clips + sum(_above(each[0], DEFECT) for each in away) / max(1, len(away))
    looks = [each[1] for each, kind in zip(away, batch.kinds, strict=True) if kind is Kind.LOOK]
    of_frames = torch.stack([_below(each[1], HARMLESS) for each in near]).mean()
    of_frames = of_frames + sum(_above(each, DEFECT) for each in looks) / DRAWN
    return of_clips + 0.3 * of_frames + 0.2 * (_above(other[0], OTHER) + _above(other[1], OTHER))


def loss_near(network: Stfn, near: Near) -> Tensor:
    """Return how far what is nearly a clip is beyond its bounds, as loss() counts it."""
    whole = network(near.clip)[0]
    off = [
        _below(_distance(network(each)[0], whole), bound)
        for each, bound in zip(near.off, map(_bound, near.decibels), strict=True)
        if bound
    ]
    coarse = [_below(_distance(network(each)[0], whole), COMPRESSED) for each in near.compressed]
    return torch.stack(coarse).mean() + (torch.stack(off).mean() if off else 0)


def _bound(decibels: float) -> float | None:
    return next((bound for least, bound in NEARNESS if decibels >= least), None)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (1 - nn.functional.cosine_similarity(a.float(), b.float())).clamp(min=1e-6)


def _below(distance: Tensor, bound: float) -> Tensor:
    return torch.relu(torch.log(distance / bound)).mean()


def _above(distance: Tensor, bound: float) -> Tensor:
    return torch.relu(torch.log(bound / distance)).mean()


def train(
    run: Path,
    steps: int,
    out: Path,
    size: StfnSize = StfnSize(),
    save_every: int = 50,
    start: Path | None = None,
    footage: Path | None = None,
    rate: float = 1e-3,
) -> Path:
    """Train from nothing, or go on from the run's checkpoint; writes stfn.json and its graphs to out.

    start: a folder of graphs that export() wrote, to begin from. footage: a folder of videos and pictures
    that half of the batches are parts of. rate: of learning.
    """
    torch.manual_seed(0)
    plan = Plan(steps, rate, warm_up=50, save_every=save_every)
    network, seen = Stfn(size), read_footage(footage) if footage else ()
    if start:
        network.load_state_dict(read_weights(start))
    network = train_network(run, "stfn", network, plan, lambda first: stream(Scenes(first, seen), 1), loss)
    return export(network.eval(), out, footage)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of an exported network, by their names in Stfn."""
    graphs = [onnx.load(folder / f"stfn{part}.onnx").graph for part in ("", "-pool")]
    named = {weight.name: weight for graph in graphs for weight in graph.initializer}
    prefix = "network."
    return {
        name.removeprefix(prefix): torch.from_numpy(onnx.numpy_helper.to_array(weight).copy())
        for name, weight in named.items()
        if name.startswith(prefix)
    }


def export(network: Stfn, folder: Path, footage: Path | None = None) -> Path:
    """Export the network as an extractor of two graphs, so that clips can be long; return its JSON's path.

    footage: the folder whose files it was trained on too, which are named as its source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph, pool = (folder / f"stfn{part}.onnx" for part in ("", "-pool"))
    frames = torch.zeros(12, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    rows = torch.zeros(12, 2 * network.size.frame)
    _export(_Part(network, "rows"), graph, {"frames": frames}, ["rows"])
    _export(_Part(network, "pool"), pool, {"rows": rows}, ["clip", "each"])
    seen = ", ".join(sorted(path.name for path in footage.iterdir())) if footage else ""
    spec = {
        "name": "stfn",
        "onnx": graph.name,
        "sha256": file_sha256(graph),
        "kind": "clip",
        "size": [WIDTH, HEIGHT],
        "resize": "box",
        "input": "frames",
        "output": "clip",
        "frames_output": "each",
        "pool": pool.name,
        "pool_sha256": file_sha256(pool),
        "licence": "Apache-2.0",
        "source": "lab/extractor/stfn_training.py, trained on clips of the bundled renderer"
        + (f" and on parts of {seen}" if seen else ""),
    }
    path = folder / "stfn.json"
    path.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return path


class _Part(nn.Module):
    """A method of a network as a module, for the exporter."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return getattr(self.network, self.name)(x)


def _export(module: nn.Module, path: Path, example: dict[str, Tensor], outputs: list[str]) -> None:
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            dynamo=True,
            opset_version=20,
            input_names=list(example),
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("n", min=2, max=100_000)},),
            verbose=False,
        )
    strip(program.model)
    program.save(path, external_data=False)
