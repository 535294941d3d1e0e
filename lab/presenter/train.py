"""Train the presenter's two networks from nothing: first the autoencoder, then the denoiser on its latents.

A run is a folder with a checkpoint, a loss log and, at the end, the weights. Starting it again resumes it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.files import atomic_write
from engines.load import native_precision
from generators.presenter.load import (
    AUTOENCODER_FILE,
    DENOISER_FILE,
    load_autoencoder,
    load_denoiser,
    save_weights,
)
from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize, to_input
from lab.presenter.dataset import OverlapWindows, Pictures, stream
from lab.presenter.loss import autoencoder_loss, denoiser_loss, measure_gains


@dataclass(frozen=True)
class Plan:
    """How long and how to train one network; the learning rate rises for warm_up steps and falls to zero."""

    steps: int
    rate: float
    warm_up: int = 100
    batch: int = 12
    frames: int = 2
    window: int = 16
    save_every: int = 200
    device: str = "cpu"
    compiled: bool = True
    workers: int = 1


class PlacedRope(nn.Module):
    """The transformer's rotary embedding for frames picked from a window: trained at their true distances.

    places (F + 1,): the reference's 0, then one more than each frame's place.
    """

    def __init__(self, rope: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.rope, self.window = rope, plan.window
        self.register_buffer("places", torch.zeros(plan.frames + 1, dtype=torch.long), persistent=False)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin tables (1, tokens, 1, head dim) of the frames at places."""
        whole = hidden_states[:, :, :1].expand(-1, -1, self.window + 1, -1, -1)
        tables = (
            table.unflatten(1, (self.window + 1, -1))[:, self.places].flatten(1, 2)
            for table in self.rope(whole)
        )
        return tuple(tables)


Loss = Callable[[nn.Module, object], Tensor]


def train_autoencoder(folder: Path, plan: Plan, size: AutoencoderSize = AutoencoderSize()) -> Path:
    """Train on rendered pictures; writes and returns autoencoder.safetensors."""
    torch.manual_seed(0)
    network = Autoencoder(size).to(plan.device, memory_format=torch.channels_last)
    ema = train_network(
        folder,
        "autoencoder",
        network,
        plan,
        lambda first: stream(Pictures(first), plan.workers),
        lambda net, batch: autoencoder_loss(net, to_input(batch.to(plan.device))),
    )
    with torch.inference_mode():  # unit variance per latent channel, measured on fresh pictures
        batches = stream(Pictures(plan.steps))
        latents = torch.cat([ema.encoder(to_input(next(batches).to(plan.device))) for _ in range(10)])
        ema.mean.copy_(latents.mean((0, 2, 3), keepdim=True))
        ema.std.copy_(latents.std((0, 2, 3), keepdim=True))
    return save_weights(ema, folder / AUTOENCODER_FILE)


def train_denoiser(
    folder: Path,
    plan: Plan,
    autoencoder_weights: Path,
    start: Path | None = None,
    size: DenoiserSize = DenoiserSize(),
) -> Path:
    """Train on the latents of an autoencoder; writes and returns denoiser.safetensors in the run's folder.

    start: weights to begin from instead of random ones; size is then theirs.
    """
    autoencoder = load_autoencoder(autoencoder_weights).to(plan.device, memory_format=torch.channels_last)
    gains = measure_gains(autoencoder, next(iter(Pictures(0))).to(plan.device))
    torch.manual_seed(0)
    network = (load_denoiser(start) if start else Denoise(size)).to(plan.device)
    network.transformer.rope = PlacedRope(network.transformer.rope, plan)
    # Compiling fuses the many small operators: 0.9 instead of 1.4 s a step on one core of a 2026 Xeon.
    forward = torch.compile(network) if plan.compiled else network
    ema = train_network(
        folder,
        "denoiser",
        network,
        plan,
        lambda first: stream(OverlapWindows(first, plan.batch, plan.frames, plan.window), plan.workers),
        lambda net, batch: denoiser_loss(
            net, forward, autoencoder, gains, [part.to(plan.device) for part in batch]
        ),
    )
    return save_weights(ema, folder / DENOISER_FILE)


def train_network(
    folder: Path, name: str, network: nn.Module, plan: Plan, batches: Callable[[int], Iterator], loss_of: Loss
) -> nn.Module:
    """AdamW, clipped gradients, averaged weights, checkpoints; returns the averaged network.

    batches: endless data from the batch of that number on. loss_of: of the network and a batch, in bfloat16
    where autocast has it. folder gets <name>.checkpoint.pt, from which a stopped run goes on, and a log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizers = make_optimizers(network, plan.rate)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    checkpoint = folder / f"{name}.checkpoint.pt"
    step = _resume(checkpoint, network, averaged, optimizers)
    source, recent, started, spoke = batches(step), [], time.monotonic(), 0.0
    first = step
    device_type = plan.device.split(":")[0]
    # Processors that do not compute in bfloat16 emulate it, which is slower than fp32.
    half = device_type != "cpu" or native_precision("openvino", "cpu") == "bf16"
    while step < plan.steps:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = plan.rate * min(1.0, (step + 1) / plan.warm_up) * (1 - step / plan.steps) ** 0.8
        torch.manual_seed(step)
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=half):
            loss = loss_of(network, next(source))
        network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        averaged.update_parameters(network)
        step += 1
        recent.append(loss.item())
        if step % plan.save_every == 0 or step == plan.steps:
            _save_checkpoint(checkpoint, network, averaged, optimizers, step)
            save_weights(averaged.module, folder / f"{name}.latest.safetensors")
            _log(folder / f"{name}.log.jsonl", step, recent, (time.monotonic() - started) / (step - first))
            recent = []
        if time.monotonic() - spoke > 10:
            spoke = time.monotonic()
            rate = (spoke - started) / (step - first)
            print(
                f"{name}: step {step}/{plan.steps}, loss {loss.item():.4f}, {rate:.2f} s/step, "
                f"{rate * (plan.steps - step) / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
    return averaged.module


def make_optimizers(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside transformer blocks, AdamW for everything else.

    Muon's updates are scaled to AdamW's size (Liu et al., 2025), so that one rate serves both.
    """
    named = list(network.named_parameters())
    matrices = [p for name, p in named if ".blocks." in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in chosen]
    adamw = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    if not matrices:
        return [adamw]
    return [adamw, torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")]


def _resume(
    checkpoint: Path, network: nn.Module, averaged: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"]


def _save_checkpoint(
    path: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    step: int,
) -> None:
    state = {
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
    }
    with atomic_write(path) as draft:
        torch.save(state, draft)


def _log(path: Path, step: int, losses: list[float], seconds: float) -> None:
    with path.open("a") as log:
        log.write(
            json.dumps(
                {
                    "step": step,
                    "loss": sum(losses) / max(1, len(losses)),
                    "seconds_per_step": round(seconds, 3),
                }
            )
            + "\n"
        )
