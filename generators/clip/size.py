"""Sizes of CLIP's image encoder, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipSize:
    """The sizes, named as in transformers' config; the defaults are ViT-H/14's. projection_dim 0: none."""

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 224
    projection_dim: int = 0

    @property
    def tokens(self) -> int:
        """The number of tokens: one for each patch, and one for the class."""
        return 1 + (self.image_size // self.patch_size) ** 2
