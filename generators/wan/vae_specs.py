"""Describe the components of the causal autoencoder: for a clip's first frame, and for later groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engines.spec import Cadence, ComponentSpec, TensorSpec
from generators.wan.config import VAE_STRIDE_HW, VAE_STRIDE_T, VaeSize
from generators.wan.tiles import Tiles

IN, OUT = "cache", "next"  # of a causal network's state, before a group and after it


def vae_specs(vae: VaeSize, latent_size: tuple[int, int], tiles: Tiles) -> Iterator[ComponentSpec]:
    """List `encode_first`, `encode_next`, `decode_first` and `decode_next`; see generators/wan/vae.py.

    latent_size: height and width of a whole picture. A decoder of tiles leaves theirs free.
    """
    h, w = (side * VAE_STRIDE_HW for side in latent_size)
    latents = TensorSpec("latents", (1, vae.z_dim, 1, *latent_size))
    decoded, caches, ranges = latents, vae.decoder_caches(*latent_size), {}
    if tiles.several:
        decoded, ranges = TensorSpec("latents", (1, vae.z_dim, 1, "h", "w")), tiles.ranges
        caches = [(*each, "h", scale, "w", scale) for *each, scale, _ in vae.decoder_caches(1, 1)]
    for place, frames, cadence in (("first", 1, Cadence.REQUEST), ("next", VAE_STRIDE_T, Cadence.CHUNK)):
        pixels = TensorSpec("pixels", (frames, h, w, 3), "uint8")
        given, kept = _states(vae.encoder_caches(h, w), place)
        seen = pixels, TensorSpec("keep", (frames,)), *given
        yield ComponentSpec(f"encode_{place}", cadence, seen, (latents, *kept))
        given, kept = _states(caches, place)
        made = TensorSpec("values", (frames, "H", "W", 3)) if tiles.several else pixels
        yield ComponentSpec(f"decode_{place}", cadence, (decoded, *given), (made, *kept), ranges)


def _states(
    caches: Sequence[tuple[int | str, ...]], place: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    given, kept = (
        tuple(TensorSpec(f"{word}_{i}", (1, *shape)) for i, shape in enumerate(caches)) for word in (IN, OUT)
    )
    return given if place == "next" else (), kept
