"""The Wan transformer and two of its pose conditioners in plain PyTorch, for the tests to compare with.

Written from published descriptions of the original code, with its tensor names, and from nothing of ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


def random_state(
    dim: int = 32, ffn: int = 48, layers: int = 2, channels: int = 48, text: int = 16, waves: int = 16,
    picture: int = 32,
) -> State:
    """Random weights of a transformer by their original names."""
    shapes = {
        "patch_embedding.weight": (dim, channels, 1, 2, 2), "patch_embedding.bias": (dim,),
        **linear("text_embedding.0", text, dim), **linear("text_embedding.2", dim, dim),
        **linear("time_embedding.0", waves, dim), **linear("time_embedding.2", dim, dim),
        **linear("time_projection.1", dim, 6 * dim), **norm("img_emb.proj.0", picture),
        **linear("img_emb.proj.1", picture, picture), **linear("img_emb.proj.3", picture, dim),
        **norm("img_emb.proj.4", dim), **linear("head.head", dim, 64), "head.modulation": (1, 2, dim),
    }
    for block in range(layers):
        at = f"blocks.{block}"
        of_picture = ("k_img", "v_img")
        for attention, names in (("self_attn", "qkvo"), ("cross_attn", (*"qkvo", *of_picture))):
            for name in names:
                shapes |= linear(f"{at}.{attention}.{name}", dim, dim)
            for name in ("norm_q", "norm_k", *["norm_k_img"] * (attention == "cross_attn")):
                shapes[f"{at}.{attention}.{name}.weight"] = (dim,)
        shapes |= linear(f"{at}.ffn.0", dim, ffn) | linear(f"{at}.ffn.2", ffn, dim) | norm(f"{at}.norm3", dim)
        shapes[f"{at}.modulation"] = (1, 6, dim)
    return drawn(shapes)


def drawn(shapes: dict[str, tuple[int, ...]]) -> State:
    """Normal numbers that keep signals at their size; norms around 1."""
    return {
        name: torch.randn(shape) / math.sqrt(math.prod(shape[1:])) if len(shape) > 1
        else torch.randn(shape) * 0.1 + ("norm" in name and name.endswith("weight"))
        for name, shape in shapes.items()
    }


def linear(name: str, before: int, after: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a linear layer."""
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer norm with weights."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


class Transformer:
    """state: weights by original names. Calls give the flow of latents (1, 16, F, h, w)."""

    def __init__(self, state: State, heads: int) -> None:
        self.state, self.heads = state, heads
        self.dim = state["patch_embedding.bias"].numel()
        self.layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))

    def of(self, name: str, x: Tensor) -> Tensor:
        """A linear layer."""
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def tokens(self, x: Tensor) -> Tensor:
        """(1, dim, F, h / 2, w / 2)."""
        weight, bias = (self.state[f"patch_embedding.{kind}"] for kind in ("weight", "bias"))
        return F.conv3d(x, weight, bias, (1, 2, 2))

    def blocks(self, grid: Tensor, t: float, text: Tensor, picture: Tensor) -> Tensor:
        """What the head makes of tokens (1, dim, f, h, w) at timestep t of 1000, text (512, width)."""
        _, _, f, h, w = grid.shape
        x = grid.flatten(2).transpose(1, 2)
        waves = self.state["time_embedding.0.weight"].shape[1]
        angles = t * torch.pow(10000.0, -torch.arange(waves // 2).double() / (waves // 2))
        sinusoid = torch.cat([angles.cos(), angles.sin()])[None].float()
        e = self.of("time_embedding.2", F.silu(self.of("time_embedding.0", sinusoid)))
        e0 = self.of("time_projection.1", F.silu(e)).view(1, 6, self.dim)
        words = self.of("text_embedding.2", F.gelu(self.of("text_embedding.0", text), approximate="tanh"))
        seen = self.layer_norm(picture, "img_emb.proj.0")
        seen = self.of("img_emb.proj.3", F.gelu(self.of("img_emb.proj.1", seen)))
        seen = self.layer_norm(seen, "img_emb.proj.4")
        turn = rotations(f, h, w, self.dim // self.heads)
        for block in range(self.layers):
            x = self.block(f"blocks.{block}", x, e0, turn, (words[None], seen))
        shift, scale = (self.state["head.modulation"] + e[:, None]).chunk(2, 1)
        x = self.of("head.head", F.layer_norm(x, (self.dim,), eps=1e-6) * (1 + scale) + shift)
        return torch.einsum("bfhwpqc->bcfhpwq", x.view(1, f, h, w, 2, 2, 16)).reshape(1, 16, f, 2 * h, 2 * w)

    def block(self, at: str, x: Tensor, e0: Tensor, turn: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """Self-attention, cross-attention to text and picture, two layers for each token."""
        s1, c1, g1, s2, c2, g2 = (self.state[f"{at}.modulation"] + e0).unbind(1)
        y = F.layer_norm(x, (self.dim,), eps=1e-6) * (1 + c1) + s1
        q, k = (self.split(turned(self.rms(f"{at}.self_attn.norm_{n}", self.of(f"{at}.self_attn.{n}", y)),
                                  turn, self.heads)) for n in "qk")
        y = attention(q, k, self.split(self.of(f"{at}.self_attn.v", y)))
        x = x + g1 * self.of(f"{at}.self_attn.o", y)
        at_cross = f"{at}.cross_attn"
        y = self.layer_norm(x, f"{at}.norm3")
        q = self.split(self.rms(f"{at_cross}.norm_q", self.of(f"{at_cross}.q", y)))
        both = 0
        for tokens, end in zip(context, ("", "_img"), strict=True):
            k = self.rms(f"{at_cross}.norm_k{end}", self.of(f"{at_cross}.k{end}", tokens))
            both = both + attention(q, self.split(k), self.split(self.of(f"{at_cross}.v{end}", tokens)))
        x = x + self.of(f"{at_cross}.o", both)
        y = F.layer_norm(x, (self.dim,), eps=1e-6) * (1 + c2) + s2
        return x + g2 * self.of(f"{at}.ffn.2", F.gelu(self.of(f"{at}.ffn.0", y), approximate="tanh"))

    def rms(self, name: str, x: Tensor) -> Tensor:
        """Over all heads together."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.state[f"{name}.weight"]

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        """With weights."""
        width = x.shape[-1]
        eps = 1e-6 if "blocks" in name else 1e-5
        return F.layer_norm(x, (width,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def split(self, x: Tensor) -> Tensor:
        """(1, heads, tokens, size)."""
        return x.view(1, -1, self.heads, self.dim // self.heads).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (1, heads, tokens, size), the heads put together again."""
    weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def rotations(f: int, h: int, w: int, size: int) -> Tensor:
    """(tokens, size / 2) complex numbers: pairs of a head for time, then for height and width."""
    parts = []
    for axis, width in enumerate((size - 4 * (size // 6), 2 * (size // 6), 2 * (size // 6))):
        places = torch.arange((f, h, w)[axis]).double()
        rates = torch.pow(10000.0, -torch.arange(0, width, 2).double() / width)
        angles = torch.outer(places, rates)
        shape = [1, 1, 1, angles.shape[1]]
        shape[axis] = -1
        parts.append(angles.view(shape).expand(f, h, w, -1))
    angles = torch.cat(parts, -1).reshape(f * h * w, -1)
    return torch.polar(torch.ones_like(angles), angles)


def turned(x: Tensor, turn: Tensor, heads: int) -> Tensor:
    """Tokens (1, n, dim) with the pairs of every head rotated."""
    pairs = torch.view_as_complex(x.double().view(1, x.shape[1], heads, -1, 2))
    return torch.view_as_real(pairs * turn[:, None]).flatten(2).float()


def euler(flow, noise: Tensor, sigmas: list[float]) -> Tensor:
    """Latents at the end of the sigmas; flow(latents, sigma)."""
    x = noise
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (after - sigma) * flow(x, sigma)
    return x


def shifted(u: float, shift: float) -> float:
    """An even share of noise as it is spent."""
    return shift * u / (1 + (shift - 1) * u)


def convolved(state: State, name: str, x: Tensor, strides: list) -> Tensor:
    """A stack of convolutions at every second index, SiLU between, none after the last."""
    for number, stride in enumerate(strides):
        weight, bias = state[f"{name}.{2 * number}.weight"], state[f"{name}.{2 * number}.bias"]
        padding = 0 if weight.shape[-1] == 2 else 1
        x = (F.conv3d if weight.ndim == 5 else F.conv2d)(x, weight, bias, stride, padding)
        x = F.silu(x) if number < len(strides) - 1 else x
    return x


def pose_state(dim: int, channels: int = 20) -> State:
    """Random weights of UniAnimate's two pose networks."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(7):
        last, size = number == 6, (1, 2, 2) if number == 6 else (3, 3, 3)
        shapes[f"dwpose_embedding.{2 * number}.weight"] = (dim if last else 16, 16 if number else 3, *size)
        shapes[f"dwpose_embedding.{2 * number}.bias"] = (dim if last else 16,)
    for number in range(6):
        after = channels if number == 5 else 16
        shapes[f"randomref_embedding_pose.{2 * number}.weight"] = (after, 16 if number else 3, 3, 3)
        shapes[f"randomref_embedding_pose.{2 * number}.bias"] = (after,)
    return drawn(shapes)
