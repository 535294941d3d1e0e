"""Read the networks' sizes from the config files beside the weights: diffusers' or the original ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from generators.clip.size import ClipSize
from generators.contract import GeneratorError
from generators.settings import read_config

PATCH = 2  # latents that share a token, up and across
VAE_STRIDE_T = 4  # frames of the video that share a latent frame, all but the first
VAE_STRIDE_HW = 8  # pixels to a latent, up and across
KEPT = 2  # frames of its input that a causal convolution keeps for the next chunk

# The original config files' names for the same sizes, where they differ.
ORIGINAL = {"in_dim": "in_channels", "out_dim": "out_channels", "num_heads": "num_attention_heads"}
Size = TypeVar("Size")


@dataclass(frozen=True)
class TransformerSize:
    """The arguments of diffusers' WanTransformer3DModel, by its names."""

    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 36
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    eps: float = 1e-6
    image_dim: int = 1280

    @property
    def dim(self) -> int:
        """The width of a token."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True)
class AnimateSize(TransformerSize):
    """The further arguments of diffusers' WanAnimateTransformer3DModel."""

    motion_encoder_size: int = 512
    motion_style_dim: int = 512
    motion_dim: int = 20
    motion_encoder_dim: int = 512
    face_encoder_hidden_dim: int = 1024
    face_encoder_num_heads: int = 4
    inject_face_latents_blocks: int = 5
    motion_encoder_channel_sizes: dict[str, int] = field(default_factory=dict)  # empty: diffusers' own


@dataclass(frozen=True)
class VaeSize:
    """The arguments of diffusers' AutoencoderKLWan, by its names; the defaults are Wan 2.1's."""

    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2

    def encoder_caches(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """List (channels, frames, h, w) of the caches that the encoder passes on, in its order."""
        dims = [self.base_dim * each for each in (1, *self.dim_mult)]
        found = [(3, KEPT, height, width)]
        for level, (before, after) in enumerate(zip(dims[:-1], dims[1:], strict=True)):
            found += self._residuals(before, after, self.num_res_blocks, height, width)
            if level < len(self.dim_mult) - 1:
                height, width = height // 2, width // 2
                found += [(after, 1, height, width)] * (level > 0)  # the first one halves no time
        return [*found, *[(dims[-1], KEPT, height, width)] * 5]

    def decoder_caches(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """List the decoder's caches, for latents of that height and width."""
        dims = [self.base_dim * each for each in (self.dim_mult[-1], *self.dim_mult[::-1])]
        found = [(self.z_dim, KEPT, height, width), *[(dims[0], KEPT, height, width)] * 4]
        last = len(self.dim_mult) - 1
        for level, (before, after) in enumerate(zip(dims[:-1], dims[1:], strict=True)):
            before = before // 2 if level else before
            found += self._residuals(before, after, self.num_res_blocks + 1, height, width)
            if level < last:
                found += [(after, KEPT, height, width)] * (level < last - 1)
                height, width = 2 * height, 2 * width
        return [*found, (dims[-1], KEPT, height, width)]

    def _residuals(self, before: int, after: int, count: int, h: int, w: int) -> list[tuple]:
        channels = [before, *[after] * (2 * count - 1)] if count else []  # two convolutions in each
        return [(each, KEPT, h, w) for each in channels]


def transformer_size(folder: Path, kind: type[Size]) -> Size:
    """Read the transformer's size from a folder; GeneratorError says what is missing or not known."""
    path = _first(folder / "transformer" / "config.json", folder / "config.json")
    if path is None:
        raise GeneratorError(
            f"{folder} has neither transformer/config.json nor config.json; both tell the network's size"
        )
    found = read_config(path)
    if "dim" in found and "num_heads" in found:
        pictured = None if found.get("model_type") == "t2v" else TransformerSize.image_dim
        found = {
            "image_dim": pictured,
            **{ORIGINAL.get(name, name): value for name, value in found.items()},
            "attention_head_dim": found["dim"] // found["num_heads"],
        }
    if found.get("image_dim", 0) is None:
        raise GeneratorError(f"{path}: this network takes no picture; a pose-driven one has an image_dim")
    return _sized(kind, found, path)


def vae_size(folder: Path) -> VaeSize:
    """Read vae/config.json of a folder, else take Wan 2.1's. GeneratorError: it is of Wan 2.2."""
    path = _first(folder / "vae" / "config.json")
    if path is None:
        return VaeSize()
    found = read_config(path)
    if found.get("is_residual"):
        raise GeneratorError(f"{path}: is_residual: the autoencoder of Wan 2.2's 5B model is not known here")
    return _sized(VaeSize, {**found, "dim_mult": tuple(found.get("dim_mult", VaeSize.dim_mult))}, path)


def clip_size(folder: Path) -> ClipSize:
    """Read image_encoder/config.json of a folder, else take ViT-H/14's sizes."""
    path = _first(folder / "image_encoder" / "config.json")
    return _sized(ClipSize, {**read_config(path), "projection_dim": 0}, path) if path else ClipSize()


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _sized(kind: type[Size], found: Mapping, path: Path) -> Size:
    defaults = asdict(kind())
    values = {name: found[name] for name in defaults if found.get(name) is not None}
    for name, value in values.items():
        wanted = type(defaults[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise GeneratorError(f"{path}: {name} must be like {defaults[name]!r}, is {value!r}")
    return kind(**values)
