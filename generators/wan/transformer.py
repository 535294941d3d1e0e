"""The transformer of one step, without what is the same at every step: that comes as inputs or constants.

What cross-attention reads of the prompt is put in when the network is made, what it reads of the picture
comes from outside (see conditioning.py). The three conditioners differ in how a pose reaches the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from engines.files import release_pages
from generators.checkpoint import kept_dtype
from generators.wan.config import PATCH, TransformerSize

Pair = tuple[Tensor, Tensor]


def transformer(size: TransformerSize) -> WanTransformer3DModel:
    """Make the network that all conditioners share, without weights."""
    return WanTransformer3DModel(
        patch_size=(1, PATCH, PATCH), cross_attn_norm=True, added_kv_proj_dim=size.dim, **vars(size)
    )


class Denoise(nn.Module):
    """The component `denoise`: the flow (noise minus clean) of one window and branch; subclasses take inputs.

    prompts: (branches, tokens, text_dim) text embeddings, the prompt's last; before it, where there is
    guidance, the negative one's. What is constant is computed in float32: files have weights of several
    dtypes, and 8 bits are for storing alone.
    """

    _keep_in_fp32_modules = WanTransformer3DModel._keep_in_fp32_modules

    def __init__(self, network: WanTransformer3DModel, prompts: Tensor) -> None:
        super().__init__()
        self.network = network
        embedder = network.condition_embedder
        with torch.no_grad():
            text = in_float32(embedder.text_embedder, prompts.float())
            for block in network.blocks:
                layers = block.attn2.to_k, block.attn2.to_v
                block.attn2 = CrossAttention(block.attn2, text)
                for layer in layers:
                    release_pages(layer.weight)  # used for the last time; the file stays mapped
        del embedder.text_embedder, embedder.image_embedder

    def run(
        self, tokens: Tensor, grid: tuple[int, int, int], time: Tensor, branch: Tensor | None, images: Pair
    ) -> Tensor:
        """Run the blocks on tokens (1, n, dim), modulated by time (1,) in [0, 1].

        grid: n tokens along time, height and width. branch (1,): 1 for the prompt, 0 for the negative one,
        None where there is only one. images: keys and values of the picture, (layers, tokens, dim).
        """
        network, embedder = self.network, self.network.condition_embedder
        waves = embedder.timesteps_proj(time * 1000.0).to(embedder.time_embedder.linear_1.weight.dtype)
        embedded = embedder.time_embedder(waves).to(embedder.time_proj.weight.dtype)
        modulation = embedder.time_proj(embedder.act_fn(embedded)).unflatten(1, (6, -1))
        frames, height, width = grid
        rotary = network.rope(tokens.new_empty(1, 1, frames, height * PATCH, width * PATCH))
        for number, block in enumerate(network.blocks):
            context = branch, images[0][number : number + 1], images[1][number : number + 1]
            tokens = block(tokens, context, modulation, rotary)
            tokens = self.between(number, tokens)
        shift, scale = (network.scale_shift_table + embedded.unsqueeze(1)).chunk(2, 1)
        tokens = (network.norm_out(tokens.float()) * (1 + scale) + shift).to(self._dtype)
        return network.proj_out(tokens)

    def between(self, number: int, tokens: Tensor) -> Tensor:
        """Change tokens after block `number`; here not at all."""
        return tokens

    def embed(self, *parts: Tensor) -> Tensor:
        """Embed latents joined by channel to tokens (1, dim, frames, h / 2, w / 2)."""
        return self.network.patch_embedding(torch.cat(parts, 1).to(self._dtype))

    @property
    def _dtype(self) -> torch.dtype:
        return self.network.patch_embedding.weight.dtype


class CrossAttention(nn.Module):
    """The attention to the prompt, with constant keys and values, and to the picture, with given ones."""

    def __init__(self, attention: nn.Module, text: Tensor) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_q, self.norm_q, self.to_out = attention.to_q, attention.norm_q, attention.to_out
        kept = kept_dtype(attention.to_k.weight.dtype)
        self.register_buffer("key", in_float32(attention.norm_k, in_float32(attention.to_k, text)).to(kept))
        self.register_buffer("value", in_float32(attention.to_v, text).to(kept))

    def forward(self, tokens: Tensor, context: tuple[Tensor | None, Tensor, Tensor], *_: None) -> Tensor:
        """Compute the sum of both, for every token."""
        branch, image_key, image_value = context
        query = self._heads(self.norm_q(self.to_q(tokens)))
        text = (self._of(each, branch).to(query.dtype) for each in (self.key, self.value))
        image = image_key.to(query.dtype), image_value.to(query.dtype)
        attend = F.scaled_dot_product_attention
        read, seen = (attend(query, *map(self._heads, each)) for each in (text, image))
        return self.to_out[0]((read + seen).transpose(1, 2).flatten(2))

    def _of(self, both: Tensor, branch: Tensor | None) -> Tensor:
        """Select the prompt that branch, exactly 0 or 1, names of two."""
        if branch is None:
            return both
        share = branch.view(1, 1, 1).to(both.dtype)
        return both[1:] * share + both[:1] * (1 - share)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FunControl(Denoise):
    """The denoiser with pose latents beside the noisy ones, and the picture as a first frame of tokens.

    ref_conv makes tokens of the picture. The third part of the channels, for a first frame that is given, is
    zero.
    """

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        pose: Tensor,
        reference: Tensor,
        image_keys: Tensor,
        image_values: Tensor,
        branch: Tensor | None = None,
    ) -> Tensor:
        """Compute the flow; latents, pose (1, 16, F, h, w); reference (1, 16, h, w)."""
        tokens = self.embed(latents, pose, torch.zeros_like(latents))
        first = self.network.ref_conv(reference.to(tokens.dtype)).unsqueeze(2)
        tokens = torch.cat([first, tokens], 2)
        grid = tuple(tokens.shape[2:])
        found = self.run(flat(tokens), grid, time, branch, (image_keys, image_values))
        return unpatched(found, grid)[:, :, 1:].float()


class UniAnimate(Denoise):
    """The denoiser that adds pose tokens in the conditional branch; the picture is a given first frame."""

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        pose: Tensor,
        first: Tensor,
        image_keys: Tensor,
        image_values: Tensor,
        branch: Tensor | None = None,
    ) -> Tensor:
        """Compute the flow; latents (1, 16, F, h, w), pose (1, dim, F, h/2, w/2), first (1, 20, F, h, w)."""
        tokens = self.embed(latents, first)
        pose = pose.to(tokens.dtype)
        tokens = tokens + (pose if branch is None else pose * branch.view(1, 1, 1, 1, 1).to(tokens.dtype))
        grid = tuple(tokens.shape[2:])
        found = self.run(flat(tokens), grid, time, branch, (image_keys, image_values))
        return unpatched(found, grid).float()


class Animate(Denoise):
    """The denoiser that adds pose tokens to all frames but the first, which is the picture.

    The face branch sees no face, but the black picture that the model's own unconditional branch sees: its
    features (1, F + 1, 5, dim) are constants too. frames: of the video in a window.
    """

    def __init__(self, network: nn.Module, prompts: Tensor, frames: int) -> None:
        super().__init__(network, prompts)
        self._every = network.config.inject_face_latents_blocks
        with torch.no_grad():
            size, kept = network.motion_encoder.size, kept_dtype(network.motion_encoder.conv_in.weight.dtype)
            motion = in_float32(network.motion_encoder, torch.full((1, 3, size, size), -1.0))
            face = in_float32(network.face_encoder, motion.expand(frames, -1).unsqueeze(0))
        self.register_buffer("face", torch.cat([torch.zeros_like(face[:, :1]), face], 1).to(kept))
        del network.motion_encoder, network.face_encoder

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        pose: Tensor,
        begin: Tensor,
        image_keys: Tensor,
        image_values: Tensor,
        branch: Tensor | None = None,
    ) -> Tensor:
        """Compute the flow; latents (1, 16, F+1, h, w), pose (1, 16, F, h, w), begin (1, 20, F+1, h, w)."""
        tokens = self.embed(latents, begin)
        posed = self.network.pose_patch_embedding(pose.to(tokens.dtype))
        tokens = torch.cat([tokens[:, :, :1], tokens[:, :, 1:] + posed], 2)
        grid = tuple(tokens.shape[2:])
        found = self.run(flat(tokens), grid, time, branch, (image_keys, image_values))
        return unpatched(found, grid).float()

    def between(self, number: int, tokens: Tensor) -> Tensor:
        """Inject the face after every fifth block."""
        if number % self._every:
            return tokens
        return tokens + self.network.face_adapter[number // self._every](tokens, self.face.to(tokens.dtype))


def in_float32(network: nn.Module, x: Tensor) -> Tensor:
    """Compute a network of x in float32, whatever its weights are stored in; they stay as they are."""
    wide = {name: each.float() for name, each in network.named_parameters()}
    return functional_call(network, wide, (x,))


def flat(tokens: Tensor) -> Tensor:
    """Flatten tokens (1, dim, f, h, w) to (1, f h w, dim)."""
    return tokens.flatten(2).transpose(1, 2).contiguous()


def unpatched(found: Tensor, grid: Sequence[int]) -> Tensor:
    """Unfold the last layer's (1, n, 4 channels) to latents (1, channels, f, 2 h, 2 w)."""
    frames, height, width = grid
    found = found.reshape(1, frames, height, width, PATCH, PATCH, -1)
    return found.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
