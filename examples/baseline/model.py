"""Stands for a baseline's own networks: plain PyTorch that knows nothing of Vivace, with random weights."""

from pathlib import Path

import torch
from torch import nn

CHANNELS, DOWN, WIDTH = 4, 8, 16


class Encoder(nn.Module):
    """Pictures (n, 3, H, W) in [-1, 1] to latents (n, 4, H/8, W/8)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.PixelUnshuffle(DOWN), nn.Conv2d(3 * DOWN**2, CHANNELS, 1))

    def forward(self, x):
        """Latents."""
        return self.layers(x)


class Decoder(nn.Module):
    """The way back."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(CHANNELS, 3 * DOWN**2, 1), nn.PixelShuffle(DOWN))

    def forward(self, z):
        """Pictures."""
        return self.layers(z)


class Denoiser(nn.Module):
    """Noisy latents (b, 4, F, h, w) at times (b,), and what they depend on, to flow: noise minus clean."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.enter = nn.Conv3d(3 * CHANNELS, WIDTH, 3, padding=1)
        self.mix = nn.Conv3d(WIDTH, WIDTH, 3, padding=1)
        self.leave = nn.Conv3d(WIDTH, CHANNELS, 1)

    def forward(self, x, t, pose, reference):
        """Flow; pose is shaped like x, reference (b, 4, h, w)."""
        angles = 1000 * t[:, None] * 10.0 ** -torch.arange(4, device=t.device)
        time = self.time(torch.cat([angles.cos(), angles.sin()], 1))[:, :, None, None, None]
        h = self.enter(torch.cat([x, pose, reference.unsqueeze(2).expand_as(x)], 1)) + time
        return self.leave(nn.functional.silu(h + self.mix(nn.functional.silu(h))))


class Model(nn.Module):
    """All three, as weights.safetensors has them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.denoiser, self.decoder = Encoder(), Denoiser(), Decoder()


if __name__ == "__main__":
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(Model().state_dict(), Path(__file__).with_name("weights.safetensors"))
