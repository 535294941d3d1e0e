"""Train the cover network: the known quality of each picture, and the order of any two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from finish.network import CoverNet, CoverSize, folded, unfolded
from finish.scorer import Cover
from generators.presenter.load import save_weights
from lab.finish.pictures import training_batch
from lab.presenter.train import Plan, train_network

STATISTICS = 10  # batches that the normalisations are measured on at last
CLEAR = 0.04  # qualities that differ by less need not be in order


@dataclass(frozen=True)
class Batch:
    """Pictures (N, SIDE, SIDE, 3) uint8 and their qualities (N,)."""

    pixels: Tensor
    quality: Tensor


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """Distance from the quality, and how surely pairs are in the wrong order.

    Computed in fp32: on a processor bfloat16 makes the gradients of convolutions by channel slower.
    """
    with torch.autocast("cpu", enabled=False):
        score = network(batch.pixels)
        distance = nn.functional.smooth_l1_loss(score, batch.quality, beta=0.1)
        apart = batch.quality[:, None] - batch.quality[None]
        wrong = nn.functional.softplus(-12 * (score[:, None] - score[None])) / 12
        return distance + wrong[apart > CLEAR].mean()


def train(
    run: Path,
    plan: Plan,
    out: Path,
    size: CoverSize = CoverSize(),
    start: Path | None = None,
    photos: Sequence[np.ndarray] = (),
) -> Path:
    """Train from nothing, or go on from the run's checkpoint; writes the folded weights to out.

    start: folded weights to begin from instead of random ones; size is then theirs. photos: what half of the
    pictures are parts of. GeneratorError.
    """
    make = partial(_batches, photos=photos)
    torch.manual_seed(0)
    network = CoverNet(size)
    if start:
        network = unfolded(Cover(start).build("score"), next(make(0)).pixels).train()
    network = network.to(memory_format=torch.channels_last)  # a third faster
    network = train_network(run, "cover", network, plan, make, loss)
    # The averaged weights make other features than those whose statistics were collected on the way.
    pictures = (batch.pixels for batch in islice(make(plan.steps), STATISTICS))
    torch.optim.swa_utils.update_bn(pictures, network)
    return save_weights(folded(network), out)


def _batches(first: int, photos: Sequence[np.ndarray]) -> Iterator[Batch]:
    while True:
        made = training_batch(first, photos)
        yield Batch(torch.from_numpy(made.pixels), torch.from_numpy(made.quality))
        first += 1
