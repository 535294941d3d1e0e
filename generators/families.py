"""Recognise of which family of networks a checkpoint is, by the names of its tensors alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Names that only checkpoints of a family have, in front of them nothing or a prefix that ends with a dot.
FAMILIES = {
    "Wan video transformer, diffusers' names": ("condition_embedder.time_proj.weight", "proj_out.weight"),
    "Wan video transformer, original names": ("time_projection.1.weight", "head.head.weight"),
    "Wan VAE, diffusers' names": ("decoder.up_blocks.0.resnets.0.norm1.gamma",),
    "Wan VAE, original names": ("decoder.upsamples.0.residual.0.gamma",),
    "SVD UNet": ("down_blocks.0.resnets.0.temporal_res_block.conv1.weight",),
    "SVD VAE": ("decoder.time_conv_out.weight",),
    "Stable Diffusion VAE": ("quant_conv.weight", "decoder.up_blocks.0.resnets.0.norm1.weight"),
    "Stable Diffusion UNet": ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",),
    "motion modules": ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",),
    "UMT5 text encoder, original names": ("token_embedding.weight", "blocks.0.attn.q.weight"),
    "T5 text encoder": ("encoder.block.0.layer.0.SelfAttention.q.weight",),
    "CLIP image encoder": ("vision_model.encoder.layers.0.self_attn.q_proj.weight",),
    "CLIP image encoder, original names": ("visual.transformer.0.attn.to_qkv.weight",),
}
LORA = re.compile(r"\blora_(A|B|down|up)\b")


def family(names: Iterable[str]) -> str | None:
    """Recognise the family that tensors of those names belong to, or None."""
    names = set(names)
    if any(LORA.search(name) for name in names):
        return "LoRA adapter, which is merged into the weights it was trained on"
    ends = {name[place:] for name in names for place in (0, *(m.end() for m in re.finditer(r"\.", name)))}
    return next((known for known, marks in FAMILIES.items() if ends.issuperset(marks)), None)
