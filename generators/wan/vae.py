"""The causal autoencoder as static graphs: a clip's first frame, then groups of four, with explicit caches.

What a group's convolutions need of the frames before it, diffusers keeps in a list inside the network. Here
it goes out of one call and into the next. All caches are as long as they can get, with zeros where nothing
came before, which is what the convolutions pad with; so the second group needs no graph of its own. Chunk by
chunk the result is that of the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn import functional as F

from generators.wan.config import VaeSize

Shapes = Sequence[tuple[int, int, int, int]]


def autoencoder(size: VaeSize) -> AutoencoderKLWan:
    """Make the network without weights."""
    return AutoencoderKLWan(**{**vars(size), "dim_mult": list(size.dim_mult)})


class Encode(nn.Module):
    """Components `encode_first` and `encode_next`: pixels (n, H, W, 3) uint8 to latents (1, 16, 1, H/8, W/8).

    n is 1, then 4. keep (n,) is 1, or 0 for frames that are to be nothing: between black and white; or 2 for
    levels that were truncated, which count as the middle between them and the next. Then the caches of the
    group before, and out go those for the next, whose shapes without the batch are `caches`.
    """

    def __init__(self, vae: AutoencoderKLWan, caches: Shapes) -> None:
        super().__init__()
        self.encoder, self.quant, self.caches = vae.encoder, vae.quant_conv, caches
        self._count = vae._cached_conv_counts["encoder"]
        _register_scale(self, vae)

    def forward(self, pixels: Tensor, keep: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Compute normalised latents, the mean of their distribution, and the caches."""
        # Cast first: TensorRT takes uint8 at the borders of a graph, but moves none.
        keep = keep.view(-1, 1, 1, 1)
        levels = (pixels.to(torch.float32) + (keep - 1.0).clamp(min=0.0) * 0.5).clamp(max=255.0)
        frames = (levels / 127.5 - 1.0) * keep.clamp(max=1.0)
        kept = _slots(self._count, caches)
        found = self.encoder(frames.permute(3, 0, 1, 2).unsqueeze(0), feat_cache=kept, feat_idx=[0])
        mean = self.quant(found).chunk(2, 1)[0]
        return (mean - self.mean) / self.std, *_full(kept, self.caches)


class Decode(nn.Module):
    """Components `decode_first` and `decode_next`: latents (1, 16, 1, h, w) to pixels (n, 8h, 8w, 3) uint8.

    n is 1, then 4. truncate: what lies between two levels becomes the lower one, not the nearer.
    """

    def __init__(self, vae: AutoencoderKLWan, caches: Shapes, truncate: bool) -> None:
        super().__init__()
        self.decoder, self.quant = vae.decoder, vae.post_quant_conv
        self.caches, self.truncate = caches, truncate
        self._count = vae._cached_conv_counts["decoder"]
        _register_scale(self, vae)

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Compute pixels and the caches."""
        values, kept = self.values(latents, caches)
        levels = ((values + 1.0) * 127.5).clamp(0.0, 255.0)
        pixels = (levels.floor() if self.truncate else levels.round()).to(torch.uint8)
        return pixels, *_full(kept, self.caches)

    def values(
        self, latents: Tensor, caches: tuple[Tensor, ...]
    ) -> tuple[Tensor, Sequence[Tensor | str | None]]:
        """Compute (n, 8h, 8w, 3), black is -1 and white 1, and diffusers' list of caches."""
        kept = _slots(self._count, caches)
        quantised = self.quant(latents * self.std + self.mean)
        found = self.decoder(quantised, feat_cache=kept, feat_idx=[0], first_chunk=not caches)
        return found[0].permute(1, 2, 3, 0), kept


class DecodeTile(Decode):
    """Components `decode_first` and `decode_next` of tiles: h and w are free, and values are not clipped.

    A cache (1, C, n, s h, s w) comes and goes as (1, C, n, h, s, w, s), so that no other sizes are free;
    `caches` are those of a single latent.
    """

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Compute values (n, 8h, 8w, 3) and the caches."""
        h, w = latents.shape[3:]
        values, kept = self.values(latents, tuple(each.flatten(5, 6).flatten(3, 4) for each in caches))
        shapes = [(channels, frames, h * s, w * s) for channels, frames, s, _ in self.caches]
        after = [
            cache.reshape(*cache.shape[:3], h, s, w, s)
            for cache, (*_, s) in zip(_full(kept, shapes), self.caches, strict=True)
        ]
        return values, *after


def _register_scale(module: nn.Module, vae: AutoencoderKLWan) -> None:
    shape = (1, vae.config.z_dim, 1, 1, 1)
    module.register_buffer("mean", torch.tensor(vae.config.latents_mean).view(shape))
    module.register_buffer("std", torch.tensor(vae.config.latents_std).view(shape))


def _slots(count: int, caches: tuple[Tensor, ...]) -> list[Tensor | None]:
    """Make diffusers' list of caches, some places of which are never used."""
    return [*caches, *[None] * (count - len(caches))]


def _full(kept: Sequence[Tensor | str | None], shapes: Shapes) -> list[Tensor]:
    """Fill caches up to their final length; diffusers marks one that is all zeros by a word."""
    found = []
    for (channels, frames, h, w), cache in zip(shapes, kept, strict=False):
        if isinstance(cache, str):
            found.append(kept[0].new_zeros(1, channels, frames, h, w))
        else:
            found.append(F.pad(cache, (0, 0, 0, 0, frames - cache.shape[2], 0)))
    return found
