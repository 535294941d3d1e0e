"""How good pictures are: the cover network on any engine, or a scorer of the user's own in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.artifact import built_folder
from engines.errors import EngineError
from engines.load import Choice, start_engines
from engines.spec import Cadence, ComponentSpec, DimRange, Engine, TensorSpec
from finish.fit import SIDE, fitted
from finish.plugged import plugged

if TYPE_CHECKING:
    import torch

BATCH = 8
WEIGHTS = Path(__file__).parent / "weights" / "cover.safetensors"


class Cover:
    """The cover network as what engines are built from: pixels (n, SIDE, SIDE, 3) uint8 to score (n,)."""

    name = "cover"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.fingerprint_files = (weights, Path(__file__).with_name("network.py"))
        self.components = {
            "score": ComponentSpec(
                "score",
                Cadence.CHUNK,
                (TensorSpec("pixels", ("n", SIDE, SIDE, 3), "uint8"),),
                (TensorSpec("score", ("n",)),),
                {"n": DimRange(1, BATCH, BATCH)},
            )
        }

    def build(self, component: str) -> torch.nn.Module:
        """The network with its weights, in float32."""
        from finish.network import CoverNet, CoverSize, folded
        from generators.presenter.load import load_network

        def make(size: dict[str, int]) -> CoverNet:
            return folded(CoverNet(CoverSize(**size)))

        return load_network(self.fingerprint_files[0], make, "python -m lab.finish train")


class Scorer:
    """Scores for pictures of any size, by an engine that takes them at one (width, height)."""

    def __init__(self, engine: Engine, size: tuple[int, int] = (SIDE, SIDE)) -> None:
        self.engine, self.size = engine, size

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """One for each (H, W, 3) uint8, at most BATCH pictures; more is better, and NaN is none."""
        pixels = np.stack([fitted(picture, self.size) for picture in pictures])
        return self.engine(pixels=pixels)["score"]


def start_scorer(
    backend: str, precision: str, device: str, say: Callable[[str], None], weights: Path = WEIGHTS
) -> Scorer:
    """The cover network on a backend, or the first that has it ("auto"); EngineError."""
    model = Cover(weights)
    choice = Choice(backend, {"score": precision}, device, built_folder(model.name))
    try:
        return Scorer(start_engines(model, choice, say)[1]["score"])
    except EngineError as error:  # it names the script for generators
        command = f"run: python -m lab.finish export --precision {precision} (TensorRT: --target gpu)"
        raise EngineError(re.sub("run: python .*", command, str(error))) from error


def own_scorer(path: Path) -> Scorer:
    """A scorer from an ONNX file: pixels (n, H, W, 3) uint8 to score (n,) float32; else EngineError."""
    return Scorer(*plugged(path, [{"score": ("n",)}], BATCH))
