"""MimicMotion's pipeline, written down plainly from its description: diffusers' own classes, no rewrites.

Weights and sums are fp32 here. What upstream's half precision does to levels, times and latents stays.
"""

import json
import math

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file
from torch.nn import functional as F

from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision
from generators.mimicmotion.pose_net import PoseNet

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Upstream:
    """The networks of a folder, each as published."""

    def __init__(self, folder):
        config = {part: json.loads((folder / part / "config.json").read_text())
                  for part in ("unet", "vae", "image_encoder")}
        both = torch.load(folder / "MimicMotion_1-1.pth", weights_only=True)
        self.unet = UNetSpatioTemporalConditionModel.from_config(config["unet"])
        self.pose_net = PoseNet(config["unet"]["block_out_channels"][0])
        self.vae = AutoencoderKLTemporalDecoder.from_config(config["vae"])
        self.clip = ClipVision(ClipSize(**config["image_encoder"]))
        for prefix, network in (("unet.", self.unet), ("pose_net.", self.pose_net)):
            own = {name: both[prefix + name].float() for name in network.state_dict()}
            network.load_state_dict(own)
        self.vae.load_state_dict(halves(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"))
        self.clip.load_state_dict(halves(folder / "image_encoder" / "model.fp16.safetensors"))
        for network in (self.unet, self.pose_net, self.vae, self.clip):
            network.eval()

    def predict(self, x, time, token, ids, pose):
        """The U-Net's v with pose (F, C, h, w) added behind its first convolution; None: nothing."""
        add = lambda module, inputs, output: output if pose is None else output + pose  # noqa: E731
        hook = self.unet.conv_in.register_forward_hook(add)
        try:
            return self.unet(x, time, token, ids, return_dict=False)[0]
        finally:
            hook.remove()


def halves(path):
    return {name: tensor.float() for name, tensor in load_file(path).items()}


@torch.inference_mode()
def generate(upstream, skeletons, image, seed, guidance=(2.0, 2.0), shown=None, tile=6, overlap=2, steps=3):
    """Frames (F, H, W, 3) uint8. skeletons (F, H, W, 3), image (H, W, 3), at a size of multiples of 64.

    shown: only as many frames are decoded.
    """
    poses = torch.from_numpy(np.concatenate([skeletons[:1], skeletons])).permute(0, 3, 1, 2) / 127.5 - 1
    levels = torch.from_numpy(image).half().permute(2, 0, 1)[None] / 127.5 - 1
    picture = ((levels + 1) * 127.5).to(torch.uint8).float() / 127.5 - 1
    frames, (height, width) = len(poses), picture.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    picture = picture + 0.0 * torch.randn(picture.shape, generator=generator)
    token = upstream.clip.embed(clip_input(picture, upstream.clip.size.image_size))[:, None]
    image_latents = upstream.vae.encode(picture).latent_dist.mode()[:, None].repeat(1, frames, 1, 1, 1)
    features = upstream.pose_net(poses)
    ids = torch.tensor([[6.0, 127.0, 0.0]])

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0,
        timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(steps)
    noise = torch.randn(1, tile, 4, height // 8, width // 8, generator=generator)
    latents = (noise.half() * scheduler.init_noise_sigma).float()
    latents = latents.repeat(1, frames // tile + 1, 1, 1, 1)[:, :frames]
    scale = torch.linspace(*guidance, frames)[None, :, None, None, None]
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, time).half().float()
        v = torch.zeros(2, *latents.shape[1:])
        total = torch.zeros(frames)
        for window in windows(frames, tile, overlap):
            part, beside = seen[:, window], image_latents[:, window]
            weight = (torch.arange(len(window)) + 0.5) * 2.0 / tile
            weight = torch.minimum(weight, 2 - weight)
            asked = time.half().float()
            nothing = torch.cat([part, torch.zeros_like(beside)], 2)
            without = upstream.predict(nothing, asked, torch.zeros_like(token), ids, None)
            given = torch.cat([part, beside], 2)
            with_all = upstream.predict(given, asked, token, ids, features[window])
            v[:, window] += torch.cat([without, with_all]) * weight[:, None, None, None]
            total[window] += weight
        unconditional, conditional = (v / total[:, None, None, None]).chunk(2)
        guided = unconditional + scale * (conditional - unconditional)
        latents = scheduler.step(guided, time, latents, return_dict=False)[0].half().float()
    decoded = [upstream.vae.decode(part, num_frames=len(part)).sample
               for part in (latents[0, :shown and shown + 1] / 0.18215).split(8)]
    pictures = (torch.cat(decoded) / 2 + 0.5).clamp(0, 1)
    return (pictures * 255.0).to(torch.uint8)[1:].permute(0, 2, 3, 1).numpy()


def windows(frames, tile, overlap):
    """Frame 0 and a run of the others; the last one moved back."""
    runs = [[0, *range(start + 1, min(start + tile, frames))]
            for start in range(0, frames - tile + 1, tile - overlap)]
    if runs[-1][-1] < frames - 1:
        runs.append([0, *range(frames - tile + 1, frames)])
    return runs


def clip_input(picture, size):
    """A picture in [-1, 1] blurred and reduced to CLIP's size, with CLIP's own mean and deviation."""
    for axis in (3, 2):
        sigma = max((picture.shape[axis] / size - 1.0) / 2.0, 0.001)
        taps = int(max(4.0 * sigma, 3))
        taps += 1 - taps % 2
        kernel = torch.tensor([math.exp(-((i - taps // 2) ** 2) / (2 * sigma**2)) for i in range(taps)])
        shape, edge = [1, 1, 1, 1], [0, 0, 0, 0]
        shape[axis] = taps
        edge[2 * (3 - axis)] = edge[2 * (3 - axis) + 1] = taps // 2
        kernel = (kernel / kernel.sum()).view(shape).expand(3, -1, -1, -1)
        picture = F.conv2d(F.pad(picture, edge, mode="reflect"), kernel, groups=3)
    small = F.interpolate(picture, size=(size, size), mode="bicubic", align_corners=True)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((small + 1) / 2 - mean) / std
