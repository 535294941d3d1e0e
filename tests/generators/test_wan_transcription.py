"""Frames of pose conditioners that diffusers has no pipeline for, beside a transcription in plain PyTorch.

The checkpoints have the original layout and names, so these are held too.
"""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from bench.frame_metrics import psnr
from generators.clip.vision import ClipVision, normalise
from generators.contract import load_generator
from generators.wan import load
from generators.wan.conditioning import POSE_STRIDES
from generators.wan.vae import autoencoder
from tests.generators.test_wan_pipelines import CLOSE, SEED, drawn, run
from tests.wan_checkpoints import CLIP, VAE, save, spread, write_part, write_settings
from tests.wan_reference import (
    Transformer,
    convolved,
    euler,
    pose_state,
    random_state,
    shifted,
)

STEPS = 3


def write_original(folder, channels, state):
    """A checkpoint in the original layout, but for autoencoder and CLIP, which other tests hold."""
    folder.mkdir()
    save(state, folder / "diffusion_pytorch_model.safetensors")
    config = {"dim": 32, "num_heads": 2, "ffn_dim": 48, "num_layers": 2, "in_dim": channels, "out_dim": 16,
              "freq_dim": 16, "eps": 1e-6, "model_type": "i2v", "text_len": 512, "text_dim": 16,
              "image_dim": 32}
    (folder / "config.json").write_text(json.dumps(config))
    write_part(folder / "vae", spread(autoencoder(VAE)).state_dict(), asdict(VAE))
    write_part(folder / "image_encoder", spread(ClipVision(CLIP)).state_dict(), asdict(CLIP))
    text = torch.randn(2, 512, 16)
    save({"prompt": text[0], "negative": text[1]}, folder / "prompt.safetensors")
    return text


class Parts:
    """Autoencoder, uncut, and the picture's tokens."""

    def __init__(self, folder, name):
        self.generator = load_generator(f"{name}={folder}")
        self.vae = load.load_vae(self.generator.vae, self.generator.files)
        config = self.vae.config
        self.mean, self.std = (torch.tensor(config[key]).view(1, 16, 1, 1, 1)
                               for key in ("latents_mean", "latents_std"))

    def encode(self, x):
        """Latents of (1, 3, F, H, W) in [-1, 1]."""
        return (self.vae.encode(x).latent_dist.mode() - self.mean) / self.std

    def decode(self, latents):
        """Pixels as upstream writes them: cut off, not rounded."""
        shown = self.vae.decode(latents * self.std + self.mean).sample[0]
        return ((shown.permute(1, 2, 3, 0) + 1) * 127.5).clamp(0, 255).to(torch.uint8).numpy()

    def picture(self, image):
        """CLIP's tokens of the picture before its last layer."""
        clip = load.load_clip(self.generator.clip, self.generator.files)
        small = torch.nn.functional.interpolate(centred(image[None])[:, :, 0], (32, 32), mode="bicubic")
        return clip.hidden(normalise(small))


def centred(frames):
    """(1, 3, F, H, W) in [-1, 1]."""
    return torch.tensor(frames).float().permute(3, 0, 1, 2)[None] / 127.5 - 1


@torch.no_grad()
def test_fun_control_shows_what_its_transcription_shows(tmp_path):
    torch.manual_seed(1)
    state = random_state(channels=48)
    state["ref_conv.weight"], state["ref_conv.bias"] = torch.randn(32, 16, 2, 2) / 8, torch.randn(32) / 8
    text = write_original(tmp_path / "fun", 48, state)
    write_settings(tmp_path / "fun", steps=STEPS, shift=3.0, guidance=6.0)
    parts, network = Parts(tmp_path / "fun", "wan-fun-control"), Transformer(state, 2)
    skeletons, image = drawn(17)
    control, reference = parts.encode(centred(skeletons)), parts.encode(centred(image[None]))[:, :, 0]
    picture = parts.picture(image)
    first = torch.nn.functional.conv2d(reference, state["ref_conv.weight"], state["ref_conv.bias"], 2)

    def flow(x, sigma):
        tokens = network.tokens(torch.cat([x, control, torch.zeros_like(x)], 1))
        tokens = torch.cat([first[:, :, None], tokens], 2)
        wanted, unwanted = (network.blocks(tokens, 1000 * sigma, each, picture)[:, :, 1:] for each in text)
        return unwanted + 6.0 * (wanted - unwanted)

    torch.manual_seed(SEED)
    least = shifted(1e-3, 3.0)
    sigmas = [shifted(u, 3.0) for u in np.linspace(1, least, STEPS)] + [0.0]
    wanted = parts.decode(euler(flow, torch.randn(control.shape), sigmas))
    assert psnr(run(parts.generator, skeletons, image) - wanted.astype(np.float32)) >= CLOSE


@torch.no_grad()
@pytest.mark.parametrize("frames", [6, 17])
def test_unianimate_shows_what_its_transcription_shows(tmp_path, frames):
    torch.manual_seed(1)
    state, poses = random_state(channels=36), pose_state(32)
    adapter = {}
    for layer, width in (("self_attn.q", 32), ("cross_attn.o", 32), ("ffn.0", 48)):
        low, high = torch.randn(4, 32) / 8, torch.randn(width, 4) / 8
        name = f"blocks.1.{layer}.lora"
        adapter |= {f"{name}_A.default.weight": low, f"{name}_B.default.weight": high}
    text = write_original(tmp_path / "uni", 36, state)
    save({f"pipe.dit.{name}": tensor for name, tensor in adapter.items()} | poses,
         tmp_path / "uni" / "adapter.safetensors")
    write_settings(tmp_path / "uni", steps=STEPS, shift=5.0, guidance=1.5)
    parts = Parts(tmp_path / "uni", "wan-unianimate")
    for layer in ("self_attn.q", "cross_attn.o", "ffn.0"):
        low, high = (adapter[f"blocks.1.{layer}.lora_{half}.default.weight"] for half in "AB")
        state[f"blocks.1.{layer}.weight"] = state[f"blocks.1.{layer}.weight"] + high @ low
    network, (skeletons, image) = Transformer(state, 2), drawn(frames)

    full = np.concatenate([skeletons, np.repeat(skeletons[-1:], 17 - frames, 0)])  # the last frame goes on
    seen = torch.tensor(np.concatenate([full[:1]] * 3 + [full])).float().permute(3, 0, 1, 2)[None] / 255
    pose = convolved(poses, "dwpose_embedding", seen, [*POSE_STRIDES, (1, 2, 2)])
    start = convolved(poses, "randomref_embedding_pose", seen[:, :, 0], [1, 1, 1, 2, 2, 2])
    given = torch.zeros(1, 3, 17, 48, 32)
    given[:, :, :1] = centred(image[None])
    latents = parts.encode(given)
    mask = torch.zeros(1, 4, 5, 6, 4)
    mask[:, :, 0] = 1
    y, picture = torch.cat([mask, latents], 1) + start[:, :, None], parts.picture(image)

    def flow(x, sigma):
        tokens = network.tokens(torch.cat([x, y], 1))
        wanted = network.blocks(tokens + pose, 1000 * sigma, text[0], picture)
        unwanted = network.blocks(tokens, 1000 * sigma, text[1], picture)
        return unwanted + 1.5 * (wanted - unwanted)

    torch.manual_seed(SEED)
    sigmas = [shifted(u, 5.0) for u in np.linspace(1, 0, STEPS + 1)]
    wanted = parts.decode(euler(flow, torch.randn(latents.shape), sigmas))[:frames]
    assert psnr(run(parts.generator, skeletons, image) - wanted.astype(np.float32)) >= CLOSE
