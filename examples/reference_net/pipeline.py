"""Stands for a baseline's own inference code: DDIM, guidance in one batch, uniform windows that overlap."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler
from models import CHANNELS, DOWN, Model
from safetensors.torch import load_file

STEPS, GUIDANCE, CONTEXT, OVERLAP = 6, 3.5, 8, 2


def uniform(frames):
    """AnimateDiff's windows at one stride; the last one goes on at the beginning."""
    if frames <= CONTEXT:
        yield list(range(frames))
        return
    for start in range(0, frames, CONTEXT - OVERLAP):
        yield [frame % frames for frame in range(start, start + CONTEXT)]


class Pipeline:
    """Skeleton frames and a picture of a person to frames of that person."""

    def __init__(self):
        self.model = Model().eval()
        self.model.load_state_dict(load_file(Path(__file__).with_name("weights.safetensors")))
        self.scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, steps_offset=1,
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")

    @torch.inference_mode()
    def __call__(self, skeletons, image, seed):
        """(F, H, W, 3) uint8 from skeletons of that shape, an image (H, W, 3) and a seed."""
        model, frames, (height, width) = self.model, len(skeletons), image.shape[:2]
        pose = model.pose_guider(normalised(skeletons)).transpose(0, 1)[None]
        bank = model.reference_net(model.encoder(normalised(image[None])))
        bank = [torch.cat([torch.zeros_like(level), level]) for level in bank]
        shape = (1, CHANNELS, frames, height // DOWN, width // DOWN)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps:
            total, count = torch.zeros(2, *shape[1:]), torch.zeros(1, 1, frames, 1, 1)
            for window in uniform(frames):
                seen = pose[:, :, window].repeat(2, 1, 1, 1, 1)
                latents = x[:, :, window].repeat(2, 1, 1, 1, 1)
                total[:, :, window] += model.denoiser(latents, t.float().expand(2), seen, bank)
                count[:, :, window] += 1
            unconditional, conditional = (total / count).chunk(2)
            v = unconditional + GUIDANCE * (conditional - unconditional)
            x = self.scheduler.step(v, t, x, eta=0.0).prev_sample
        pictures = model.decoder(x[0].transpose(0, 1))
        return ((pictures + 1) * 127.5).clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()


def normalised(frames):
    """uint8 (n, H, W, 3) to (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
