"""Fit the part of stfn that pools over time, to rows of many clips that are computed once."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.files import atomic_write
from lab.extractor.cropped import read_footage
from lab.extractor.defects import Kind
from lab.extractor.stfn import Stfn, StfnSize
from lab.extractor.stfn_batches import Batch, Near, make_batch, make_near
from lab.extractor.stfn_training import export, loss, loss_near, read_weights

FIRST = 1000  # number of a batch; train() begins with 0
TOGETHER, NEAR_TOGETHER = 8, 6  # batches, and near clips, in a step
NEAR = 1.5  # how much the near clips count


@dataclass(frozen=True)
class PoolFit:
    """How the pooling is fitted: to so many batches and near clips, in steps at a rate of learning.

    fits: that begin alike and draw differently; the mean of their weights is kept.
    """

    batches: int = 640
    near: int = 200
    steps: int = 400
    rate: float = 5e-4
    fits: int = 2


def fit_pool(
    run: Path,
    fit: PoolFit,
    out: Path,
    start: Path,
    footage: Path | None = None,
    size: StfnSize = StfnSize(),
) -> Path:
    """Fit an exported network's pooling to rows of clips, and export it to out.

    run: a folder for the rows, which are kept there; again: goes on. start: a folder that export() wrote.
    footage: a folder of videos and pictures that half of the batches are parts of.
    """
    network = Stfn(size).eval()
    network.load_state_dict(weights := read_weights(start))
    seen = read_footage(footage) if footage else ()
    batches = [
        Batch(**{**rows, "kinds": [Kind(kind) for kind in rows["kinds"]]})
        for rows in keep_rows(network, "batch", fit.batches, lambda n: make_batch(FIRST + n, seen), run)
    ]
    near = [Near(**rows) for rows in keep_rows(network, "near", fit.near, make_near, run)]
    found = []
    for seed in range(fit.fits):
        network.load_state_dict(weights)
        found.append(_fit(network, batches, near, fit, seed))
    network.load_state_dict({name: torch.stack([each[name] for each in found]).mean(0) for name in weights})
    return export(network, out, footage)


def keep_rows(
    network: Stfn, name: str, count: int, make: Callable[[int], Batch | Near], folder: Path
) -> Iterator[dict]:
    """Yield the parts of what make() makes, with rows (F, 2 frame) for frames and values for kinds.

    They are read from <name>-<number>.pt where that was made before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{name}-{number}.pt"
        if not path.exists():
            with torch.inference_mode(), atomic_write(path) as draft:
                torch.save(_rows(network, make(number)), draft)
            print(f"pool: rows of {name} {number + 1}/{count}", file=sys.stderr, flush=True)
        yield torch.load(path, weights_only=True)


def _fit(
    network: Stfn, batches: Sequence[Batch], near: Sequence[Near], fit: PoolFit, seed: int
) -> dict[str, Tensor]:
    """Fit once; return all weights."""
    draw = random.Random(seed)
    weights = [*network.over_time.parameters(), *network.out.parameters(), *network.head.parameters()]
    optimizer = torch.optim.AdamW(weights, fit.rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, fit.rate, fit.steps)
    for step in range(fit.steps):
        whole = [loss(network.pool, draw.choice(batches)) for _ in range(TOGETHER)]
        close = [loss_near(network.pool, draw.choice(near)) for _ in range(NEAR_TOGETHER)]
        value = torch.stack(whole).mean() + NEAR * torch.stack(close).mean()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            done = f"pool: fit {seed + 1}/{fit.fits}, step {step + 1}/{fit.steps}"
            print(f"{done}, loss {value.item():.3f}", file=sys.stderr, flush=True)
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def _rows(network: Stfn, made: Batch | Near) -> dict[str, object]:
    """Return the parts of what was made, with rows for clips and values for kinds."""

    def part(value: object) -> object:
        if isinstance(value, Tensor):
            return network.rows(value)
        if isinstance(value, list):
            return [part(each) for each in value]
        return value.value if isinstance(value, Kind) else value

    return {each.name: part(getattr(made, each.name)) for each in fields(made)}
