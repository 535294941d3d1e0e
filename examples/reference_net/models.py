"""Stands for a baseline's own networks of the reference-net kind, with random weights."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

CHANNELS, DOWN, WIDTH, LEVELS, HEADS = 4, 8, 16, 2, 2


def tokens(x):
    """(n, WIDTH, h, w) to (n, h w, WIDTH)."""
    return x.flatten(2).transpose(1, 2)


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


class PoseGuider(nn.Module):
    """Skeletons (n, 3, H, W) to features (n, WIDTH, H/8, W/8) that are added to the denoiser's first."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.PixelUnshuffle(DOWN), nn.Conv2d(3 * DOWN**2, WIDTH, 1), nn.SiLU(),
                                    nn.Conv2d(WIDTH, WIDTH, 3, padding=1))

    def forward(self, x):
        """Features."""
        return self.layers(x)


class Attention(nn.Module):
    """Self-attention of x (n, tokens, WIDTH), which sees bank (n, more tokens, WIDTH) too."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x, bank=None):
        """X and what it attends to."""
        h = self.norm(x)
        seen = h if bank is None else torch.cat([h, bank], 1)
        q, k, v = (layer(each).unflatten(2, (HEADS, -1)).transpose(1, 2)
                   for layer, each in ((self.q, h), (self.k, seen), (self.v, seen)))
        return x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ReferenceNet(nn.Module):
    """Latents of the picture (n, 4, h, w) to the bank: what its attention sees at each level."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(CHANNELS, WIDTH, 3, padding=1)
        self.levels = nn.ModuleList(Attention() for _ in range(LEVELS))

    def forward(self, z):
        """Tokens (n, h w, WIDTH) of each level."""
        x, bank = tokens(self.enter(z)), []
        for level in self.levels:
            bank.append(level.norm(x))
            x = level(x)
        return tuple(bank)


class Denoiser(nn.Module):
    """Noisy latents (b, 4, F, h, w) at trained steps (b,) to v; all frames attend to the bank."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.enter, self.leave = nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, CHANNELS, 1)
        self.spatial, self.temporal = (nn.ModuleList(Attention() for _ in range(LEVELS)) for _ in range(2))

    def forward(self, x, t, pose, bank):
        """V; pose (b, WIDTH, F, h, w), bank: (b, h w, WIDTH) at each level."""
        b, _, f, h, w = x.shape
        angles = t[:, None] * 10.0 ** -torch.arange(4, device=t.device)
        time = self.time(torch.cat([angles.cos(), angles.sin()], 1))
        frames = self.enter(x.transpose(1, 2).flatten(0, 1)) + pose.transpose(1, 2).flatten(0, 1)
        z = tokens(frames).unflatten(0, (b, f)) + time[:, None, None]
        for spatial, temporal, seen in zip(self.spatial, self.temporal, bank, strict=True):
            seen = seen[:, None].expand(-1, f, -1, -1).flatten(0, 1)
            z = spatial(z.flatten(0, 1), seen).unflatten(0, (b, f)).transpose(1, 2)
            z = temporal(z.flatten(0, 1)).unflatten(0, (b, h * w)).transpose(1, 2)
        z = z.flatten(0, 1).transpose(1, 2).unflatten(2, (h, w))
        return self.leave(z).unflatten(0, (b, f)).transpose(1, 2)


class Model(nn.Module):
    """All five, as weights.safetensors has them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.pose_guider = Encoder(), Decoder(), PoseGuider()
        self.reference_net, self.denoiser = ReferenceNet(), Denoiser()


if __name__ == "__main__":
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(Model().state_dict(), Path(__file__).with_name("weights.safetensors"))
