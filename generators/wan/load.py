"""Load networks of the Wan family from checkpoint files, in diffusers' layout or the original one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanAnimateTransformer3DModel, WanTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_wan_transformer_to_diffusers,
    convert_wan_vae_to_diffusers,
)
from torch import Tensor, nn

from generators import lora
from generators.adapters import Lora
from generators.checkpoint import fill, open_checkpoint, weightless
from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision, from_open_clip
from generators.contract import GeneratorError
from generators.wan.conditioning import pose_embedding, reference_pose_embedding
from generators.wan.config import PATCH, TransformerSize, VaeSize
from generators.wan.files import Files
from generators.wan.transformer import transformer
from generators.wan.vae import autoencoder

Tensors = dict[str, Tensor]
# In some files, and of no use: of the motion encoder, the kernel that blurs before it halves is a constant.
UNUSED = (r"norm_added_q", r"^motion_encoder\..+\.kernel$")
# Words of original layers' names that have a _ of their own.
COMPOUND = ("self_attn", "cross_attn", "k_img", "v_img", "img_emb", "time_embedding", "text_embedding",
            "time_projection", "patch_embedding", "ref_conv", "pose_patch_embedding")  # fmt: skip
POSE = re.compile(r"(?:^|\.)(?P<name>(?:dwpose_embedding|randomref_embedding_pose)\..+)")


def fun_control_network(size: TransformerSize) -> WanTransformer3DModel:
    """Make the network with ref_conv, which makes tokens of the picture's latents."""
    network = transformer(size)
    network.ref_conv = nn.Conv2d(size.out_channels, size.dim, PATCH, PATCH)
    return network


def unianimate_network(size: TransformerSize) -> WanTransformer3DModel:
    """Make the network with the two pose networks."""
    network = transformer(size)
    network.dwpose_embedding = pose_embedding(size.dim)
    network.randomref_embedding_pose = reference_pose_embedding(size.in_channels - size.out_channels)
    return network


def animate_network(size: TransformerSize) -> nn.Module:
    """Make diffusers' own network, which has a pose's patches and the face branch."""
    sizes = {name: value or None for name, value in asdict(size).items()}
    return WanAnimateTransformer3DModel(
        **sizes, latent_channels=size.out_channels, added_kv_proj_dim=size.dim
    )


def load_network(
    make: Callable[[TransformerSize], nn.Module],
    size: TransformerSize,
    files: Files,
    adapted: bool,
    loras: Sequence[Lora] = (),
) -> nn.Module:
    """Load the network of `make` with the weights of the files, and merge what is trained on top of them.

    adapted: the adapter beside them; loras: other files.
    """
    tensors = _named(files.transformer, "blocks.0.self_attn.q.weight", convert_wan_transformer_to_diffusers)
    if adapted:
        merge(tensors, open_checkpoint(files.adapter).tensors(), files.adapter)
    lora.merge_all(tensors, loras, diffusers_name)
    with weightless():
        network = make(size)
    return fill(network, tensors, files.transformer, ignored=UNUSED)


def load_vae(size: VaeSize, files: Files) -> AutoencoderKLWan:
    """Load the autoencoder in float32."""
    tensors = _named(files.vae, "decoder.head.0.gamma", convert_wan_vae_to_diffusers)
    with weightless():
        network = autoencoder(size)
    return fill(network, tensors, files.vae, torch.float32)


def load_clip(size: ClipSize, files: Files) -> ClipVision:
    """Load the image encoder in float32."""
    tensors = _named(files.image_encoder, "visual.patch_embedding.weight", from_open_clip)
    with weightless():
        network = ClipVision(size)
    return fill(network, tensors, files.image_encoder, torch.float32, (r"position_ids$", "visual_projection"))


def load_prompts(files: Files, guided: bool) -> Tensor:
    """Load text embeddings (branches, tokens, text_dim), the prompt's last. GeneratorError."""
    tensors = open_checkpoint(files.prompt).tensors()
    names = ["negative", "prompt"] if guided else ["prompt"]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise GeneratorError(f"{files.prompt} lacks {', '.join(missing)}; it has {', '.join(tensors)}")
    shapes = {name: tuple(tensors[name].shape) for name in names}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise GeneratorError(f"{files.prompt}: must hold (tokens, width) of one shape, has {shapes}")
    return torch.stack([tensors[name] for name in names])


def merge(tensors: Tensors, adapter: Tensors, origin: Path) -> None:
    """Merge UniAnimate's file: a low-rank adapter, whose scale upstream does not apply, and pose networks.

    GeneratorError: what is no part of either.
    """
    poses = {name: found["name"] for name in adapter if (found := POSE.search(name))}
    rest = {
        name: tensor for name, tensor in adapter.items() if name not in poses and not name.endswith(".alpha")
    }
    lora.merge(tensors, rest, origin, 1.0, diffusers_name)
    tensors |= {renamed: adapter[name] for name, renamed in poses.items()}


def diffusers_name(layer: str) -> str:
    """Give diffusers' name of a layer by its original one, in which kohya's programs write _ for a dot."""
    if "." not in layer:
        layer = layer.replace("_", ".")
        for word in COMPOUND:
            layer = layer.replace(word.replace("_", "."), word)
    (name,) = [*convert_wan_transformer_to_diffusers({f"{layer}.": torch.empty(2)})][:1]
    return name.removesuffix(".")


def _named(path: Path, mark: str, rename: Callable[[Tensors], Tensors]) -> Tensors:
    """Read a checkpoint's tensors by diffusers' names; mark: a name that original files have."""
    tensors = open_checkpoint(path).tensors()
    return rename(tensors) if any(name.endswith(mark) for name in tensors) else tensors
