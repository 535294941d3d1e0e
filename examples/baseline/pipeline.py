"""Stands for a baseline's own inference code, as contests hand it out: 16 frames at once, plain PyTorch."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from model import Model  # noqa: E402

STEPS, SHIFT, GUIDANCE, FRAMES = 4, 3.0, 2.0, 16


class Pipeline:
    """Skeleton frames and a picture of a person to frames of that person."""

    def __init__(self):
        self.model = Model().eval()
        self.model.load_state_dict(load_file(FOLDER / "weights.safetensors"))

    @torch.inference_mode()
    def __call__(self, skeletons, image, seed):
        """(16, 96, 64, 3) uint8 from skeletons of that shape, an image (96, 64, 3) and a seed."""
        model = self.model
        pose = model.encoder(self.normalised(skeletons)).transpose(0, 1)[None]
        reference = model.encoder(self.normalised(image[None]))
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(FRAMES, *reference.shape[1:], generator=generator).transpose(0, 1)[None]
        u = torch.linspace(1, 0, STEPS + 1)
        times = SHIFT * u / (1 + (SHIFT - 1) * u)
        for now, then in zip(times[:-1], times[1:], strict=True):
            t = now.expand(1)
            conditional = model.denoiser(x, t, pose, reference)
            unconditional = model.denoiser(x, t, 0 * pose, 0 * reference)
            flow = unconditional + GUIDANCE * (conditional - unconditional)
            x = x + (then - now) * flow
        pictures = model.decoder(x[0].transpose(0, 1))
        return ((pictures + 1) * 127.5).clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()

    def normalised(self, frames):
        """uint8 (n, H, W, 3) to (n, 3, H, W) in [-1, 1]."""
        return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
