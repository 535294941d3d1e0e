"""Random weights in MimicMotion's layout: the full size to measure, or a tiny one to test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from safetensors.torch import save_file
from torch import nn

from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision
from generators.mimicmotion.files import HALVES, IMAGE_ENCODER, UNET, VAE, Settings
from generators.mimicmotion.pose_net import PoseNet

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"
# Stable Video Diffusion 1.1's own, and the smallest with each of its kinds of blocks.
CONFIGS = {
    "full": {
        UNET: {"num_attention_heads": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280],
               "down_block_types": [CROSS_DOWN] * 3 + [PLAIN_DOWN],
               "up_block_types": [PLAIN_UP] + [CROSS_UP] * 3, "layers_per_block": 2,
               "cross_attention_dim": 1024, "addition_time_embed_dim": 256,
               "projection_class_embeddings_input_dim": 768},
        VAE: {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "scaling_factor": 0.18215,
              "down_block_types": ["DownEncoderBlock2D"] * 4},
        IMAGE_ENCODER: {**vars(ClipSize()), "projection_dim": 1024},
    },
    "tiny": {
        UNET: {"num_attention_heads": [1, 2], "block_out_channels": [32, 64],
               "down_block_types": [CROSS_DOWN, PLAIN_DOWN], "up_block_types": [PLAIN_UP, CROSS_UP],
               "layers_per_block": 1, "cross_attention_dim": 16, "addition_time_embed_dim": 8,
               "projection_class_embeddings_input_dim": 24},
        VAE: {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1, "scaling_factor": 0.18215,
              "down_block_types": ["DownEncoderBlock2D"] * 4},
        IMAGE_ENCODER: {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "patch_size": 14,
                        "num_attention_heads": 2, "image_size": 28, "projection_dim": 16},
    },
}  # fmt: skip


def write_folder(folder: Path, size: str) -> Path:
    """Write configs and weights in half precision, "full" or "tiny", the same ones every time."""
    torch.manual_seed(0)
    configs = CONFIGS[size]
    for part, config in configs.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    vae = AutoencoderKLTemporalDecoder.from_config(configs[VAE])
    save_file(_halves(vae), folder / VAE / HALVES[VAE])
    clip = ClipVision(ClipSize(**configs[IMAGE_ENCODER]))
    save_file(_halves(clip), folder / IMAGE_ENCODER / HALVES[IMAGE_ENCODER])
    pose_net = PoseNet(configs[UNET]["block_out_channels"][0])
    for layer in pose_net.modules():
        if isinstance(layer, nn.Conv2d):  # else next to nothing arrives behind nine layers
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    unet = UNetSpatioTemporalConditionModel.from_config(configs[UNET])
    both = [(f"unet.{name}", tensor) for name, tensor in _halves(unet).items()]
    both += [(f"pose_net.{name}", tensor) for name, tensor in _halves(pose_net).items()]
    torch.save(dict(both), folder / Settings.checkpoint)
    return folder


def _halves(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in network.half().state_dict().items()}
