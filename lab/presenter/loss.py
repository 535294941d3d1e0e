"""What the presenter's two networks are trained to make small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.presenter.model import LATENT_CHANNELS, Autoencoder, Denoise, to_input

CONDITION_DROP = 0.1
# Times are logit-normal, mostly near pure noise: what the inputs determine is decided there. After training
# with a mean of 0.3 and a spread of 1, a whole sampling run ended with the error of the first prediction.
TIME_MEAN, TIME_SPREAD = 1.0, 1.4
# The rest of the times are 1, where sampling begins: at any other, a trace of the clean colours is left in
# the picture's mean, and a network that learns to read them there paints grey where there are none (Lin et
# al., 2024, Common diffusion noise schedules and sample steps are flawed).
TIME_ONE = 0.2
SMOOTH = 4  # latents a side of the squares whose mean counts as the smooth part of an error
LEAST_GAIN = 0.2


@dataclass(frozen=True)
class Gains:
    """What an error costs in pixels, by latent channel (16, 1, 1, 1): fine if it is noise, smooth if a tint.

    A few channels carry the colours: in the bundled autoencoder a smooth error there costs a hundred times
    what it costs in others, and with equal weights the denoiser drew sharp figures in washed-out colours.
    """

    fine: Tensor
    smooth: Tensor


def measure_gains(autoencoder: Autoencoder, pictures: Tensor, size: float = 0.1) -> Gains:
    """Decode latents of pictures (N, H, W, 3) uint8 with errors of that RMS in one channel at a time."""
    random = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        latents = autoencoder.encode(to_input(pictures))
        decoded = autoencoder.decode(latents)

        def cost(channel: int, error: Tensor) -> float:
            changed = latents.clone()
            changed[:, channel] += (error * size).to(latents)
            return float((autoencoder.decode(changed) - decoded).square().mean())

        shape = latents[:, 0].shape
        fine = [cost(c, torch.randn(shape, generator=random)) for c in range(LATENT_CHANNELS)]
        tints = torch.randn((shape[0], 1, 1), generator=random)
        smooth = [cost(c, tints / tints.square().mean().sqrt()) for c in range(LATENT_CHANNELS)]
    unit = sum(fine) / LATENT_CHANNELS
    as_weights = [torch.tensor(costs).div(unit).clamp(min=LEAST_GAIN) for costs in (fine, smooth)]
    return Gains(*(weights.view(-1, 1, 1, 1).to(latents.device) for weights in as_weights))


def autoencoder_loss(network: Autoencoder, pictures: Tensor) -> Tensor:
    """L1 + MSE + gradient L1 of pictures rebuilt from slightly noisy latents."""
    latents = network.encoder(pictures)
    noise = torch.randn_like(latents) * (0.05 * latents.detach().float().std())
    return picture_loss(network.decoder(latents + noise), pictures)


def decoder_loss(network: Autoencoder, pictures: Tensor, latents: Tensor, frames: Tensor) -> Tensor:
    """Of pictures rebuilt from slightly noisy latents, and as much of frames drawn from sampled latents.

    pictures, frames (N, H, W, 3) uint8; latents (N, 16, H/8, W/8). The encoder gets no gradient.
    """
    with torch.no_grad():
        own = network.encode(to_input(pictures)).float()
        own += 0.05 * torch.randn_like(own)
    rebuilt, drawn = network.decode(own), network.decode(latents)
    return (picture_loss(rebuilt, to_input(pictures)) + picture_loss(drawn, to_input(frames))) / 2


def picture_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """L1 + MSE + gradient L1, both (N, 3, H, W) in [-1, 1]."""
    error = decoded.float() - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + error.square().mean() + edges


def denoiser_loss(
    network: Denoise, forward: nn.Module, autoencoder: Autoencoder, gains: Gains, batch: list[Tensor]
) -> Tensor:
    """Flow matching at random times, conditions dropped together in a tenth of the items.

    forward is the network, or its compiled form; batch is what dataset.Windows yields.
    """
    references, frames, skeletons, weights, places = batch
    count, length = frames.shape[:2]
    with torch.no_grad():
        pixels = torch.cat([references[:, None], frames, skeletons], 1)
        latents = autoencoder.encode(to_input(pixels.flatten(0, 1))).float()
        latents = latents.reshape(count, -1, *latents.shape[1:])
        keep = (torch.rand(count, device=latents.device) >= CONDITION_DROP).float()
        mask = keep[:, None, None, None]
        reference = latents[:, 0] * mask
        clean = latents[:, 1 : 1 + length].transpose(1, 2)
        pose = latents[:, 1 + length :].transpose(1, 2) * mask[..., None]
        noise = torch.randn_like(clean)
        times = torch.sigmoid(torch.randn(count, device=latents.device) * TIME_SPREAD + TIME_MEAN)
        times = torch.where(torch.rand(count, device=latents.device) < TIME_ONE, 1.0, times)
        t = times[:, None, None, None, None]
        noisy = clean + (noise - clean) * t
    network.transformer.rope.places.copy_(torch.cat([places.new_zeros(1), places + 1]))
    flow = forward(noisy, times, pose, reference, keep)
    return weighted_error(flow.float() - (noise - clean), weights, gains)


def weighted_error(error: Tensor, weights: Tensor, gains: Gains) -> Tensor:
    """Mean square of a latent error (B, 16, F, h, w), by channel as it would show in pixels.

    weights (B, F, h, w): what each place counts.
    """
    h, w = error.shape[-2:]
    tiles = F.avg_pool2d(error.flatten(0, 2), SMOOTH, ceil_mode=True, count_include_pad=False)
    smooth = tiles.repeat_interleave(SMOOTH, -2)[..., :h, :].repeat_interleave(SMOOTH, -1)[..., :w]
    smooth = smooth.reshape(error.shape)
    cost = (gains.fine * (error - smooth).square() + gains.smooth * smooth.square()).mean(1)
    return (cost * weights).sum() / weights.sum()
