"""Train the joint finders of bench/pose: one for the bundled presenter, one for skeleton videos."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.artifact import file_sha256
from engines.onnx.export import quiet, strip
from lab.joints.network import JointNet
from lab.joints.pictures import Batch, drawn_batches, people, people_batches
from lab.presenter.render.clip import HEIGHT, WIDTH
from lab.presenter.train import Plan, train_network

PEOPLE = 1000  # each at three moments, kept in memory; every batch sees them otherwise
BUMP = 20.0  # how much more a cell counts where a joint is: nearly all cells are empty
STATISTICS = 20  # batches that the normalisations are measured on at last
SUBJECTS = {
    "presenter": "frames of the bundled presenter's renderer",
    "skeleton": "skeletons drawn as OpenPose and DWPose draw them",
}


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return the cross-entropy of heat maps, in which bumps count more. In fp32, as lab/finish has it."""
    with torch.autocast("cpu", enabled=False):
        logits = network.logits(batch.pictures)
        weight = 1 + BUMP * batch.heat
        return nn.functional.binary_cross_entropy_with_logits(logits, batch.heat, weight)


def train(subject: str, run: Path, plan: Plan, out: Path) -> Path:
    """Train from nothing, or go on from the run's checkpoint; write <subject>.onnx and its JSON to out."""
    torch.manual_seed(0)
    network = JointNet().to(memory_format=torch.channels_last)
    batches = _batches(subject, plan.batch)
    network = train_network(run, subject, network, plan, batches, loss)
    # The averaged weights make other features than those whose statistics were collected on the way.
    pictures = (batch.pictures for batch in islice(batches(plan.steps), STATISTICS))
    torch.optim.swa_utils.update_bn(pictures, network)
    return export(network.eval(), subject, out)


def export(network: JointNet, subject: str, folder: Path) -> Path:
    """Write the network as a pose estimator for pictures of any size; return its JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / f"{subject}.onnx"
    count, rows, columns = (torch.export.Dim(name, min=1, max=most) for name, most in
                            (("n", 64), ("rows", 256), ("columns", 256)))  # fmt: skip
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, HEIGHT, WIDTH, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=20,
            input_names=["frames"],
            output_names=["heat"],
            dynamic_shapes=({0: count, 1: 16 * rows, 2: 16 * columns},),
            verbose=False,
        )
    strip(program.model)
    program.save(graph, external_data=False)
    spec = {
        "name": subject,
        "onnx": graph.name,
        "sha256": file_sha256(graph),
        "kind": "heatmaps",
        "joints": "openpose-18",
        "size": [WIDTH, HEIGHT],
        "fit": "pad",
        "resize": "box",
        "input": "frames",
        "outputs": ["heat"],
        "licence": "Apache-2.0",
        "source": f"lab/joints/training.py, trained on {SUBJECTS[subject]}",
    }
    path = folder / f"{subject}.json"
    path.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return path


def _batches(subject: str, size: int) -> Callable[[int], Iterator[Batch]]:
    if subject == "skeleton":
        return lambda first: drawn_batches(first, size)
    marked = people(PEOPLE)
    return lambda first: people_batches(first, size, marked)
