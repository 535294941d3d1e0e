"""Fit the part of stfn that pools over time, to rows of many clips that are computed once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engines.files import atomic_write
from lab.extractor.cropped import read_footage
from lab.extractor.defects import Kind
from lab.extractor.stfn import Stfn, StfnSize
from lab.extractor.stfn_batches import Batch, make_batch
from lab.extractor.stfn_training import export, loss, read_weights

FIRST = 1000  # number of a batch; train() begins with 0
TOGETHER = 8  # batches in a step


def fit_pool(
    run: Path,
    batches: int,
    steps: int,
    out: Path,
    start: Path,
    footage: Path | None = None,
    rate: float = 5e-4,
    size: StfnSize = StfnSize(),
) -> Path:
    """Fit an exported network's pooling to rows of so many batches, and export it to out.

    run: a folder for the rows, which are kept there; again: goes on. start: a folder that export() wrote.
    footage: a folder of videos and pictures that half of the batches are parts of.
    """
    torch.manual_seed(0)
    network = Stfn(size)
    network.load_state_dict(read_weights(start))
    kept = list(keep_rows(network.eval(), batches, read_footage(footage) if footage else (), run))
    weights = [*network.over_time.parameters(), *network.out.parameters(), *network.head.parameters()]
    optimizer = torch.optim.AdamW(weights, rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for step in range(steps):
        drawn = torch.randint(len(kept), (TOGETHER,)).tolist()
        value = torch.stack([loss(network.pool, kept[number]) for number in drawn]).mean()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"pool: step {step + 1}/{steps}, loss {value.item():.3f}", file=sys.stderr, flush=True)
    return export(network, out, footage)


def keep_rows(network: Stfn, count: int, footage: Sequence[np.ndarray], folder: Path) -> Iterator[Batch]:
    """Yield batches of rows (F, 2 frame) in place of frames, from files where they have been made before."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(FIRST, FIRST + count):
        path = folder / f"{number}.pt"
        if not path.exists():
            with torch.inference_mode(), atomic_write(path) as draft:
                torch.save(asdict(_rows(network, make_batch(number, footage))), draft)
            print(f"pool: rows of batch {number - FIRST + 1}/{count}", file=sys.stderr, flush=True)
        found = torch.load(path, weights_only=True)
        yield Batch(**{**found, "kinds": [Kind(kind) for kind in found["kinds"]]})


def _rows(network: Stfn, batch: Batch) -> Batch:
    def each(clips: list[Tensor]) -> list[Tensor]:
        return [network.rows(clip) for clip in clips]

    named = {name: each(getattr(batch, name)) for name in ("harmless", "compressed", "defects")}
    kinds = [kind.value for kind in batch.kinds]
    return replace(
        batch, clip=network.rows(batch.clip), other=network.rows(batch.other), kinds=kinds, **named
    )
