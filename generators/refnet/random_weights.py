"""Random weights in Moore-AnimateAnyone's layout: the full size to measure, or a tiny one to test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn

from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision
from generators.refnet.files import DENOISER, GUIDER, IMAGE_ENCODER, MOTION, REFERENCE, SD15, UNETS, VAE
from generators.refnet.load import make_unet
from generators.refnet.pictures import PoseGuider
from generators.refnet.unet import add_motion

UNET = UNETS[0]
# The published sizes, and the smallest with each kind of block.
CONFIGS = {
    "full": {
        UNET: SD15,
        VAE: {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
              "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4},
        IMAGE_ENCODER: {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                        "num_attention_heads": 16, "patch_size": 14, "image_size": 224,
                        "projection_dim": 768},
    },
    "tiny": {
        UNET: {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1, "cross_attention_dim": 16,
               "attention_head_dim": 4, "norm_num_groups": 16},
        VAE: {"block_out_channels": [16, 16, 16, 32], "layers_per_block": 1, "latent_channels": 4,
              "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
              "norm_num_groups": 8},
        IMAGE_ENCODER: {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "patch_size": 56,
                        "num_attention_heads": 2, "image_size": 224, "projection_dim": 16},
    },
}  # fmt: skip


def write_folder(folder: Path, size: str) -> Path:
    """Write configs and weights, "full" in half precision or "tiny" in single, the same ones every time."""
    configs, dtype = CONFIGS[size], torch.float16 if size == "full" else torch.float32
    for part, config in configs.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # whose tensors have names and shapes, which is all that is wanted
        unet, motion = make_unet(configs[UNET]), add_motion(make_unet(configs[UNET]), 1)
        guider = PoseGuider(configs[UNET]["block_out_channels"][0])
        vae = AutoencoderKL.from_config(configs[VAE])
        clip = ClipVision(ClipSize(**configs[IMAGE_ENCODER]))
    reference = _drawn(unet, random, dtype)
    ends = [name for name in reference if name.startswith(("conv_norm_out.", "conv_out."))]
    torch.save({name: reference[name] for name in reference if name not in ends}, folder / REFERENCE)
    both = _drawn(motion, random, dtype)
    motion = {name: both.pop(name) for name in [*both] if ".motion_modules." in name}
    torch.save(motion, folder / MOTION)
    torch.save(both, folder / DENOISER)
    del both, motion, reference
    torch.save(_drawn(guider, random, dtype, 2.0), folder / GUIDER)
    save_file(_drawn(vae, random, dtype), folder / VAE / "diffusion_pytorch_model.safetensors")
    save_file(_drawn(clip, random, dtype), folder / IMAGE_ENCODER / "model.safetensors")
    return folder


def _drawn(
    network: nn.Module, random: torch.Generator, dtype: torch.dtype, gain: float = 1.0
) -> dict[str, torch.Tensor]:
    """Draw every tensor anew, so that nothing is zero or one and could be left out unnoticed.

    Numbers are even ones of the generator, whose order does not depend on a library's versions.
    """
    made = {}
    for name, tensor in sorted(network.state_dict().items()):
        even = torch.rand(tensor.shape, generator=random) * 2 - 1
        if tensor.ndim > 1:
            wide = 1.5 if ".to_q." in name or ".to_k." in name else gain  # else attention is to all alike
            even *= wide * (3 / tensor[0].numel()) ** 0.5
        else:
            even = 0.3 * even + (name.endswith("weight") and "norm" in name.lower())
        made[name] = even.to(dtype)
    return made
