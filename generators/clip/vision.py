"""CLIP's image encoder (a vision transformer), with the tensor names of transformers' CLIPVisionModel.

Importing this file needs torch; nothing at run time on another engine imports it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.clip.size import ClipSize

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipVision(nn.Module):
    """The encoder: pictures (N, 3, S, S) as normalise() gives them, S being image_size, to features.

    quick: its activation is OpenAI's quick_gelu.
    """

    def __init__(self, size: ClipSize, quick: bool = False) -> None:
        super().__init__()
        self.size = size
        self.vision_model = nn.ModuleDict(
            {
                "embeddings": Embeddings(size),
                "pre_layrnorm": nn.LayerNorm(size.hidden_size),  # misspelt upstream
                "encoder": nn.ModuleDict(
                    {"layers": nn.ModuleList(Layer(size, quick) for _ in range(size.num_hidden_layers))}
                ),
                "post_layernorm": nn.LayerNorm(size.hidden_size),
            }
        )
        if size.projection_dim:
            self.visual_projection = nn.Linear(size.hidden_size, size.projection_dim, bias=False)

    def hidden(self, pictures: Tensor) -> Tensor:
        """Compute what goes into the last layer, (N, tokens, hidden_size)."""
        return self._through(pictures, slice(None, -1))

    def embed(self, pictures: Tensor) -> Tensor:
        """Compute the projected embedding of each picture, (N, projection_dim)."""
        classes = self._through(pictures, slice(None))[:, 0]
        return self.visual_projection(self.vision_model["post_layernorm"](classes))

    def _through(self, pictures: Tensor, layers: slice) -> Tensor:
        tokens = self.vision_model["pre_layrnorm"](self.vision_model["embeddings"](pictures))
        for layer in self.vision_model["encoder"]["layers"][layers]:
            tokens = layer(tokens)
        return tokens


class Embeddings(nn.Module):
    """The patches and the class token, each with its position's embedding."""

    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(size.hidden_size) * 0.02)
        self.patch_embedding = nn.Conv2d(3, size.hidden_size, size.patch_size, size.patch_size, bias=False)
        self.position_embedding = nn.Embedding(size.tokens, size.hidden_size)

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the first layer's input, (N, tokens, hidden_size)."""
        embed = self.patch_embedding  # whose weights may be stored in half precision
        patches = embed(pictures.to(embed.weight.dtype)).flatten(2).transpose(1, 2)
        classes = self.class_embedding.expand(len(pictures), 1, -1)
        return torch.cat([classes, patches], 1) + self.position_embedding.weight


class Layer(nn.Module):
    """A layer: attention, then a network for each token, each after a norm."""

    def __init__(self, size: ClipSize, quick: bool) -> None:
        super().__init__()
        width, self.heads, self.quick = size.hidden_size, size.num_attention_heads, quick
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        projections = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in projections})
        wide = size.intermediate_size
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, wide), "fc2": nn.Linear(wide, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the next tokens, shaped like the given ones."""
        seen = self.layer_norm1(tokens)
        query, key, value = (
            self.self_attn[name](seen).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.self_attn["out_proj"](mixed)
        wide = self.mlp["fc1"](self.layer_norm2(tokens))
        return tokens + self.mlp["fc2"](wide * torch.sigmoid(1.702 * wide) if self.quick else F.gelu(wide))


def normalise(pictures: Tensor) -> Tensor:
    """Scale pictures (N, 3, S, S) in [-1, 1] by CLIP's own mean and deviation."""
    mean, std = (pictures.new_tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    return ((pictures + 1.0) / 2.0 - mean) / std


def from_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of Wan's CLIP file (visual.*) to transformers' names; other parts are left out."""
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith("visual.") or name == "visual.head":
            continue
        name = name.removeprefix("visual.")
        if ".attn.to_qkv." in name:
            start, _, kind = name.partition(".attn.to_qkv.")
            for part, each in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{_layer(start)}.self_attn.{part}_proj.{kind}"] = each
        else:
            found[_renamed(name)] = tensor.flatten() if name == "cls_embedding" else tensor
    return {f"vision_model.{name}": _squeezed(name, tensor) for name, tensor in found.items()}


def _renamed(name: str) -> str:
    plain = {
        "patch_embedding.weight": "embeddings.patch_embedding.weight",
        "cls_embedding": "embeddings.class_embedding",
        "pos_embedding": "embeddings.position_embedding.weight",
    }
    if name in plain:
        return plain[name]
    if not name.startswith("transformer."):
        return name.replace("pre_norm.", "pre_layrnorm.").replace("post_norm.", "post_layernorm.")
    start, _, rest = name.removeprefix("transformer.").partition(".")
    for old, new in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn.proj", "self_attn.out_proj"),
                     ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2")):  # fmt: skip
        if rest.startswith(f"{old}."):
            return f"encoder.layers.{start}.{new}{rest.removeprefix(old)}"
    return name


def _layer(start: str) -> str:
    return start.replace("transformer.", "encoder.layers.")


def _squeezed(name: str, tensor: Tensor) -> Tensor:
    return tensor.squeeze(0) if name == "embeddings.position_embedding.weight" else tensor
