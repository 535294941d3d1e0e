"""A generator in NumPy alone: a run of thousands of files costs no more than reading and writing them.

Loading this file has the backend "torch" give its functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from engines import load
from generators.contract import Engines
from generators.noise import torch_normal
from generators.resize import cover
from generators.samplers import FlowMatchEuler
from generators.windows import OverlapWindows

HERE = "lab.faults.numpy_generator"
SCRIPT = f"{Path(__file__).resolve()}:NumpyGenerator"
if __name__ != HERE:  # as a script's generator, in a process of its own
    load.BACKENDS["torch"] = (HERE, "start")


class NumpyGenerator:
    """A generator whose latents (1, F, 12, 8) are means of 8 x 8 pixels, and whose flow leads to the pose."""

    name, size, chunk, frame_axis = "numpy", (64, 96), 8, 1
    scheduler, guidance, windows = FlowMatchEuler(2, 2.0), 2.0, OverlapWindows(16, 4)
    components: Mapping = dict.fromkeys(("encode", "denoise", "decode"))
    per_frame, fingerprint_files = frozenset({"pose"}), (Path(__file__),)

    def build(self, component: str) -> None:
        """Fail: its engines are functions."""
        raise NotImplementedError(component)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Scale to cover 64 x 96, and cut around the centre."""
        return cover(pixels, *self.size)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return pose (1, F, 12, 8) and reference (1, 1, 12, 8)."""
        pose = np.concatenate([engines["encode"](pixels=chunk)["latents"] for chunk in chunks], 1)
        return {"pose": pose, "reference": engines["encode"](pixels=image)["latents"]}

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw (1, F, 12, 8)."""
        return torch_normal((frames, 12, 8), seed)[None]

    def denoise(
        self, engine: object, latents: np.ndarray, step: int, constants: Mapping, conditional: bool
    ) -> np.ndarray:
        """Return the flow of one window."""
        return engine(latents=latents, pose=constants["pose"])["flow"]

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Give pixels (n, 96, 64, 3) uint8, a chunk at a time."""
        for start in range(0, latents.shape[1], self.chunk):
            yield engines["decode"](latents=latents[:, start : start + self.chunk])["pixels"]


class Function:
    """An engine that runs a function of the component's name."""

    path = None

    def __init__(self, component: str) -> None:
        self._function = {"encode": _encode, "denoise": _denoise, "decode": _decode}[component]

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name."""
        return self._function(**arrays)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def why_not(device: str) -> None:
    """Return None: it runs everywhere."""


def start(model: object, component: str, precision: str, device: str, folder: Path) -> Function:
    """Start one component's function."""
    return Function(component)


def _encode(pixels: np.ndarray) -> dict[str, np.ndarray]:
    means = pixels.reshape(len(pixels), 12, 8, 8, 8, 3).mean((2, 4, 5), dtype=np.float32)
    return {"latents": means[None] / 127.5 - 1}


def _denoise(latents: np.ndarray, pose: np.ndarray) -> dict[str, np.ndarray]:
    return {"flow": latents - pose}


def _decode(latents: np.ndarray) -> dict[str, np.ndarray]:
    pixels = ((latents[0] + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return {"pixels": pixels.repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3)}
