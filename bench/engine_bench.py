"""Compare engines on one clip: their speed in interleaved rounds, their frames against the base model's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.frame_metrics import psnr, temporal_error
from engines.artifact import built_folder
from engines.errors import EngineError
from engines.load import Choice, start_engines
from engines.precision import choose_precisions
from generators.contract import Engines, Generator
from pipeline.sampler import generate


@dataclass(frozen=True)
class Variant:
    """A backend with precisions, written like openvino:bf16 or onnxruntime:fp32,denoise=int8-fp32."""

    backend: str
    precision: str

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From its text; without a precision it is fp32."""
        backend, _, precision = text.partition(":")
        return cls(backend, precision or "fp32")

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


@dataclass(frozen=True)
class Clip:
    """What is generated: skeletons (F, H, W, 3) and image (H, W, 3) at the generator's size, and the seed."""

    skeletons: np.ndarray
    image: np.ndarray
    seed: int


BASE = Variant("torch", "fp32")


def compare(
    generator: Generator,
    clip: Clip,
    ways: list[Variant],
    device: str,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, dict]:
    """Figures of each way by its text; the base, eager torch in fp32, is always the first of every round.

    A round runs every way once, after one run of each that does not count. speedup is the median over rounds
    of the base's seconds by the way's own. A way that cannot run here has only its reason, under "refused".
    """
    ways = [BASE, *(way for way in ways if way != BASE)]
    figures: dict[str, dict] = {}
    with _all_started(generator, ways, device, figures) as running:
        frames = {}
        for way, engines in running.items():
            say(f"warm-up {way}")
            frames[way] = generate(generator, engines, clip.skeletons, clip.image, clip.seed)
        seconds: dict[Variant, list[float]] = {way: [] for way in running}
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            for way, engines in running.items():
                start = time.perf_counter()
                generate(generator, engines, clip.skeletons, clip.image, clip.seed)
                seconds[way].append(time.perf_counter() - start)
    for way in running:
        error = frames[way].astype(np.float32) - frames[BASE]
        ratios = [base / own for base, own in zip(seconds[BASE], seconds[way], strict=True)]
        figures[str(way)] |= {
            "speedup": round(statistics.median(ratios), 3),
            "seconds_p50": round(statistics.median(seconds[way]), 4),
            "seconds": [round(s, 4) for s in seconds[way]],
            "psnr_to_base": None if way == BASE else round(psnr(error), 2),
            "temporal_error": round(temporal_error(error), 4),
        }
    return figures


def table(figures: dict[str, dict]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| way | speed against torch eager | PSNR to base, dB | temporal error, levels | start, s |",
        "|---|---|---|---|---|",
    ]
    for way, row in figures.items():
        if "refused" in row:
            lines.append(f"| {way} | {row['refused']} | | | |")
            continue
        distance = "the base" if row["psnr_to_base"] is None else f"{row['psnr_to_base']:.1f}"
        lines.append(
            f"| {way} | {row['speedup']:.2f} | {distance} | {row['temporal_error']:.3f} | "
            f"{row['start_seconds']:.1f} |"
        )
    return "\n".join(lines)


@contextmanager
def _all_started(
    generator: Generator, ways: list[Variant], device: str, figures: dict[str, dict]
) -> Iterator[dict[Variant, Engines]]:
    folder: Path = built_folder(generator.name)
    running: dict[Variant, Engines] = {}
    precisions = {way: choose_precisions(way.precision, generator.components) for way in ways}
    try:
        for way in ways:
            start = time.perf_counter()
            try:
                choice = Choice(way.backend, precisions[way], device, folder)
                _, running[way] = start_engines(generator, choice, lambda text: None)
            except EngineError as refusal:
                figures[str(way)] = {"refused": str(refusal).splitlines()[0]}
                continue
            figures[str(way)] = {"start_seconds": round(time.perf_counter() - start, 2)}
        if BASE not in running:
            raise EngineError(f"the base, {BASE}, cannot run: {figures[str(BASE)]['refused']}")
        yield running
    finally:
        for engines in running.values():
            for engine in engines.values():
                engine.close()
