"""A baseline of the reference-net kind, wrapped: docs/wrapping.md goes through this file.

  python -m pipeline check examples/reference_net/wrapper.py:ReferenceNet
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from generators.diffusion_grids import DdimScheduler
from generators.noise import torch_normal
from generators.resize import cover
from generators.uniform_windows import UniformWindows

CODE, WEIGHTS = (Path(__file__).with_name(name) for name in ("models.py", "weights.safetensors"))
WIDTH, HEIGHT, FRAMES, FEATURES = 64, 96, 8, 16
h, w = HEIGHT // 8, WIDTH // 8


def make_network(component: str):
    """A torch module; pixels are normalised inside."""
    import torch
    from models import Model  # of this folder, whatever else is called so
    from torch import nn

    from generators.checkpoint import fill, open_checkpoint, weightless

    class Pixels(nn.Module):  # (n, HEIGHT, WIDTH, 3) uint8 to (n, 3, HEIGHT, WIDTH) in [-1, 1]
        def forward(self, pixels):
            return pixels.float().permute(0, 3, 1, 2) / 127.5 - 1.0

    class Picture(nn.Module):  # and back
        def forward(self, x):
            return ((x + 1.0) * 127.5).clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8)

    class Denoise(nn.Module):  # the levels of the bank are inputs of their own
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, latents, time, pose, bank0, bank1):
            return self.inner(latents, time, pose, (bank0, bank1))

    with weightless():
        model = Model()
    fill(model, open_checkpoint(WEIGHTS).tensors(), WEIGHTS)
    return {"pose": nn.Sequential(Pixels(), model.pose_guider), "denoise": Denoise(model.denoiser),
            "reference": nn.Sequential(Pixels(), model.encoder, model.reference_net),
            "decode": nn.Sequential(model.decoder, Picture())}[component]


def tensors(**dims):
    """Specs of float tensors by name."""
    return tuple(TensorSpec(name, dims) for name, dims in dims.items())


pixels = TensorSpec("pixels", ("n", HEIGHT, WIDTH, 3), "uint8")
picture = TensorSpec("image", (1, HEIGHT, WIDTH, 3), "uint8")
window, any_frames, any_branches = ("b", 4, FRAMES, h, w), {"n": DimRange(1, 8, 8)}, {"b": DimRange(1, 2, 2)}
seen = tensors(latents=window, time=("b",), pose=("b", FEATURES, FRAMES, h, w), bank0=("b", h * w, FEATURES),
               bank1=("b", h * w, FEATURES))
bank = tensors(bank0=(1, h * w, FEATURES), bank1=(1, h * w, FEATURES))


class ReferenceNet:
    """Answers generators/contract.py."""

    name, size, chunk, frame_axis = "reference_net", (WIDTH, HEIGHT), 8, 2
    scheduler = DdimScheduler(6, "v", "trailing", offset=1, betas="linear", zero_snr=True)
    guidance, windows, per_frame = 3.5, UniformWindows(FRAMES, overlap=2), frozenset({"pose"})
    fingerprint_files, resident = (Path(__file__), CODE, WEIGHTS), True
    components = {each.name: each for each in (
        ComponentSpec("pose", Cadence.CHUNK, (pixels,), tensors(pose=("n", FEATURES, h, w)), any_frames),
        ComponentSpec("reference", Cadence.REQUEST, (picture,), bank),
        ComponentSpec("denoise", Cadence.STEP, seen, tensors(v=window), any_branches),
        ComponentSpec("decode", Cadence.CHUNK, tensors(latents=("n", 4, h, w)), (pixels,), any_frames))}

    def build(self, component):
        """The network of one entry of components."""
        return make_network(component)

    def fit(self, pixels):
        """Scaled to cover the output's size, and cut around the centre."""
        return cover(pixels, *self.size)

    def condition(self, engines, chunks, image):
        """pose (1, 16, F, h, w), and the bank, which is computed once."""
        pose = np.concatenate([engines["pose"](pixels=chunk)["pose"] for chunk in chunks])
        return {"pose": pose.transpose(1, 0, 2, 3)[None], **engines["reference"](image=image)}

    def noise(self, frames, seed):
        """torch.randn's numbers."""
        return torch_normal((1, 4, frames, h, w), seed)

    def denoise_branches(self, engine, latents, step, constants, branches):
        """v of all branches in one call; the unconditional one sees a bank of zeros."""
        count, keep = len(branches), np.asarray(branches, np.float32, like=latents)[:, None, None]
        return engine(latents=latents.repeat(count, 0), time=self.scheduler.times[[step]].repeat(count),
                      pose=constants["pose"].repeat(count, 0), bank0=constants["bank0"] * keep,
                      bank1=constants["bank1"] * keep)["v"]

    def decode(self, engines, latents):
        """Pixels, a chunk at a time."""
        frames = latents[0].transpose(1, 0, 2, 3)
        for start in range(0, len(frames), self.chunk):
            yield engines["decode"](latents=frames[start:start + self.chunk])["pixels"]
