"""Tiny random checkpoints of the three Wan conditioners, written as diffusers lays them out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision
from generators.wan import load
from generators.wan.config import AnimateSize, TransformerSize, VaeSize
from generators.wan.vae import autoencoder

TOKENS, TEXT = 512, 16  # of the prompt, as diffusers has it built in; width of its embedding
COMMON = {"num_attention_heads": 2, "attention_head_dim": 16, "text_dim": TEXT, "freq_dim": 16, "ffn_dim": 48,
          "num_layers": 2, "image_dim": 32}
VAE = VaeSize(base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=0)
CLIP = ClipSize(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                patch_size=8, image_size=32)
SIZES = {
    "wan-fun-control": TransformerSize(in_channels=48, **COMMON),
    "wan-unianimate": TransformerSize(in_channels=36, **COMMON),
    "wan-animate": AnimateSize(
        in_channels=36, motion_encoder_size=16, motion_style_dim=8, motion_dim=4, motion_encoder_dim=8,
        face_encoder_hidden_dim=8, face_encoder_num_heads=2, inject_face_latents_blocks=2,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 4}, **COMMON),
}
SETTINGS = {"width": 32, "height": 48, "frames": 17, "steps": 2, "half": False}


def network_of(name: str) -> torch.nn.Module:
    """The tiny network of a conditioner, with random weights that make every part of it count."""
    maker = {"wan-fun-control": load.fun_control_network, "wan-unianimate": load.unianimate_network,
             "wan-animate": load.animate_network}[name]
    return spread(maker(SIZES[name]))


def spread(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that are initialised as zero or one moved, so that none hides a mistake."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def write_checkpoint(folder: Path, name: str, **settings: object) -> Path:
    """The folder with everything a generator of that name needs; settings: of vivace.toml."""
    torch.manual_seed(0)
    network = network_of(name)
    state, adapter = network.state_dict(), {}
    if name == "wan-unianimate":
        adapter = {key: state.pop(key) for key in list(state) if "embedding_pose." in key or "dwpose_" in key}
        for layer, width in (("self_attn.q", 32), ("ffn.0", 48)):
            adapter[f"pipe.dit.blocks.0.{layer}.lora_A.default.weight"] = torch.randn(4, 32) * 0.1
            adapter[f"pipe.dit.blocks.0.{layer}.lora_B.default.weight"] = torch.randn(width, 4) * 0.1
        save(adapter, folder / "adapter.safetensors")
    write_part(folder / "transformer", state, asdict(SIZES[name]))
    vae = spread(autoencoder(VAE))
    write_part(folder / "vae", vae.state_dict(), asdict(VAE))
    write_part(folder / "image_encoder", spread(ClipVision(CLIP)).state_dict(), asdict(CLIP))
    text = torch.randn(2, TOKENS, TEXT)
    text[:, -2:] = 0  # after their length
    save({"prompt": text[0], "negative": text[1]}, folder / "prompt.safetensors")
    write_settings(folder, **settings)
    return folder


def write_settings(folder: Path, **settings: object) -> None:
    """vivace.toml."""
    lines = (f"{key} = {json.dumps(value)}" for key, value in {**SETTINGS, **settings}.items())
    (folder / "vivace.toml").write_text("\n".join(lines) + "\n")


def write_part(folder: Path, state: dict[str, torch.Tensor], config: dict) -> None:
    """Weights and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A file of tensors."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
