"""Train the decoder once more, on latents as the denoiser leaves them: it learns to draw what was meant.

The encoder stays as it is, and with it everything that the denoiser knows of latents.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from engines.files import atomic_write
from generators.presenter.load import AUTOENCODER_FILE, load_autoencoder, load_denoiser, save_weights
from generators.presenter.model import Autoencoder, Denoise, to_input
from generators.samplers import FlowMatchEuler
from lab.presenter.dataset import TRAINING_SEEDS, Pictures, batch_numbers, stream
from lab.presenter.loss import decoder_loss
from lab.presenter.render.clip import FPS, Clip
from lab.presenter.train import Plan, train_network

FIRST_SEED = TRAINING_SEEDS + 900_000  # people that no other stage has seen
GRID = FlowMatchEuler(8, 3.0)  # 8 steps end 44 dB from where 25 do
GUIDANCES = (1.0, 1.5)  # of the clips in turn
CLIPS_A_BATCH, FRAMES_A_CLIP = 6, 4


def train_decoder(
    folder: Path, plan: Plan, autoencoder_weights: Path, denoiser_weights: Path, clips: int
) -> Path:
    """Sample clips of plan.window frames, then train on them; writes and returns autoencoder.safetensors.

    Half of each batch are latents of the encoder, so that nothing of that is unlearned. Clips are kept in the
    folder: a stopped run goes on, with sampling too.
    """
    network = load_autoencoder(autoencoder_weights).to(plan.device, memory_format=torch.channels_last)
    network.encoder.requires_grad_(False)
    paths = [folder / "clips" / f"{number:04}.npz" for number in range(clips)]
    sample_clips(paths, network, load_denoiser(denoiser_weights).to(plan.device), plan)
    ema = train_network(
        folder,
        "decoder",
        network,
        plan,
        lambda first: stream(Mixed(first, paths), plan.workers),
        lambda net, batch: decoder_loss(net, *(part.to(plan.device) for part in batch)),
    )
    return save_weights(ema, folder / AUTOENCODER_FILE)


def sample_clips(paths: list[Path], autoencoder: Autoencoder, denoiser: Denoise, plan: Plan) -> None:
    """Write those that are not there: latents (F, 16, h, w) float16 as sampled, frames (F, H, W, 3) uint8."""
    missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    for done, (number, path) in enumerate(missing):
        clip, start = Clip(FIRST_SEED + number), np.random.default_rng((number, 9)).uniform(0, 8)
        t = start + np.arange(plan.window) / FPS
        latents = sampled(autoencoder, denoiser, clip, t, number)
        with atomic_write(path) as draft, draft.open("wb") as file:
            np.savez(file, latents=latents.cpu().numpy().astype(np.float16), frames=clip.frames(t))
        if done % 10 == 0:
            print(f"decoder: sampled {done + 1}/{len(missing)} clips", file=sys.stderr, flush=True)


@torch.inference_mode()
def sampled(autoencoder: Autoencoder, denoiser: Denoise, clip: Clip, t: np.ndarray, seed: int) -> Tensor:
    """Latents (F, 16, h, w) of a window of a clip at the times t; the seed says how they are guided too."""
    device, guidance = next(denoiser.parameters()).device, GUIDANCES[seed % len(GUIDANCES)]
    pixels = torch.from_numpy(np.concatenate([clip.reference()[None], clip.skeletons(t)])).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        known = autoencoder.encode(to_input(pixels)).float()
        reference, pose = known[:1], known[1:].transpose(0, 1)[None]
        x = torch.randn(pose.shape, generator=torch.Generator().manual_seed(seed)).to(device)
        for step in range(GRID.steps):
            time = torch.tensor([float(GRID.times[step])], device=device)
            with_all, without = (
                denoiser(x, time, pose * keep, reference * keep, torch.tensor([keep], device=device)).float()
                for keep in (1.0, 0.0)
            )
            x = GRID.leap(x, without + guidance * (with_all - without), step, step + 1)
    return x[0].transpose(0, 1)


class Mixed(IterableDataset):
    """Batches of Pictures, and latents (24, 16, h, w) and frames (24, H, W, 3) of sampled clips."""

    def __init__(self, first: int, paths: list[Path]) -> None:
        self._first, self._paths, self._pictures = first, paths, Pictures(first)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for n, pictures in zip(batch_numbers(self._first), self._pictures, strict=False):
            rng, latents, frames = np.random.default_rng((n, 11)), [], []
            for path in rng.choice(np.array(self._paths, object), CLIPS_A_BATCH):
                with np.load(path, allow_pickle=False) as clip:
                    chosen = rng.integers(0, len(clip["frames"]), FRAMES_A_CLIP)
                    latents.append(clip["latents"][chosen].astype(np.float32))
                    frames.append(clip["frames"][chosen])
            yield pictures, *(torch.from_numpy(np.concatenate(part)) for part in (latents, frames))
