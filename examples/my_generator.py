"""A baseline of your own, wrapped: a folder of PyTorch code and weights, whose code stays as it is.

Copy this file, put your model in, and run what every other generator gets: checks, export, engines, recipes.

  python -m pipeline check path/to/your_copy.py:MyGenerator
  python infer.py --generator path/to/your_copy.py:MyGenerator

The folder here is baseline/ (random weights: the picture means nothing). What to change, for what:

  make_network              your networks, filled from your checkpoint; pixel conventions belong inside them
  fingerprint_files         what makes engines stale: weights, networks' code, of this file what build reaches
  components                each network's inputs and outputs: names, shapes, dtypes; how often it runs
  size, fit                 the output's width and height, and how inputs are cropped or padded to it
  condition, per_frame      what the denoiser sees beside latents; per_frame names what has a value a frame
  scheduler, guidance, windows   the published sampling: steps and shift, guidance scale, window and overlap
  noise, denoise, decode    the initial noise (draw order matters for parity), a prediction, latents to pixels
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from generators.noise import torch_normal
from generators.resize import cover
from generators.samplers import FlowMatchEuler
from generators.windows import OverlapWindows

CODE, WEIGHTS = (Path(__file__).parent / "baseline" / name for name in ("model.py", "weights.safetensors"))


def make_network(component: str):
    """A torch module. torch is imported in here, so that a run on another engine never loads it."""
    import torch
    from torch import nn

    from generators.checkpoint import fill, open_checkpoint, weightless

    class Pixels(nn.Module):  # (n, 96, 64, 3) uint8 to (n, 3, 96, 64) in [-1, 1]
        def forward(self, pixels):
            return pixels.float().permute(0, 3, 1, 2) / 127.5 - 1.0

    class Picture(nn.Module):  # and back
        def forward(self, x):
            return ((x + 1.0) * 127.5).clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8)

    with weightless():
        model = runpy.run_path(str(CODE))["Model"]()
    fill(model, open_checkpoint(WEIGHTS).tensors(), WEIGHTS)
    return {"encode": nn.Sequential(Pixels(), model.encoder), "denoise": model.denoiser,
            "decode": nn.Sequential(model.decoder, Picture())}[component]


class MyGenerator:
    """Answers generators/contract.py in full: what each member means is said there."""
    name, size, chunk, frame_axis, resident = "my_generator", (64, 96), 8, 2, True
    scheduler, guidance, windows = FlowMatchEuler(4, shift=3.0), 2.0, OverlapWindows(16, overlap=4)
    per_frame, fingerprint_files = frozenset({"pose"}), (Path(__file__), CODE, WEIGHTS)
    pixels, latents = TensorSpec("pixels", ("n", 96, 64, 3), "uint8"), TensorSpec("latents", ("n", 4, 12, 8))
    window, n, b = ("b", 4, 16, 12, 8), {"n": DimRange(1, 8, 8)}, {"b": DimRange(1, 1, 2)}
    seen = (TensorSpec("latents", window), TensorSpec("time", ("b",)), TensorSpec("pose", window),
            TensorSpec("reference", ("b", 4, 12, 8)))
    components = {"encode": ComponentSpec("encode", Cadence.CHUNK, (pixels,), (latents,), n),
                  "denoise": ComponentSpec("denoise", Cadence.STEP, seen, (TensorSpec("flow", window),), b),
                  "decode": ComponentSpec("decode", Cadence.CHUNK, (latents,), (pixels,), n)}

    def build(self, component: str):
        """The network of one entry of components."""
        return make_network(component)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Scaled to cover the output's size, and cut around the centre."""
        return cover(pixels, *self.size)

    def condition(self, engines, chunks, image: np.ndarray) -> dict[str, np.ndarray]:
        """pose (1, 4, F, h, w) and reference (1, 4, h, w)."""
        reference = engines["encode"](pixels=image)["latents"]
        pose = np.concatenate([engines["encode"](pixels=chunk)["latents"] for chunk in chunks])
        return {"pose": pose.transpose(1, 0, 2, 3)[None], "reference": reference}

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """(1, 4, F, h, w), the numbers of torch.randn, drawn frame by frame."""
        return torch_normal((frames, 4, 12, 8), seed).transpose(1, 0, 2, 3)[None]

    def denoise(self, engine, latents: np.ndarray, step: int, constants, conditional: bool) -> np.ndarray:
        """The flow of one window; the unconditional branch sees zeros."""
        keep, time = np.float32(conditional), self.scheduler.times[step:step + 1]
        pose, reference = (constants[name] * keep for name in ("pose", "reference"))
        return engine(latents=latents, time=time, pose=pose, reference=reference)["flow"]

    def decode(self, engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Pixels (n, 96, 64, 3) uint8, a chunk at a time."""
        frames = latents[0].transpose(1, 0, 2, 3)
        for start in range(0, len(frames), self.chunk):
            yield engines["decode"](latents=frames[start:start + self.chunk])["pixels"]
