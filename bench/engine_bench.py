"""Compare engines on one clip: their speed in interleaved rounds, their frames against the base model's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bench.frame_metrics import psnr, temporal_error
from bench.interleave import interleave, median_ratio
from engines.artifact import built_folder
from engines.errors import EngineError
from engines.load import Choice, start_engines
from engines.precision import choose_precisions
from generators.contract import Engines, Generator
from pipeline.sampler import generate


@dataclass(frozen=True)
class Clip:
    """The inputs of a run: skeletons (F, H, W, 3) and image (H, W, 3) at the generator's size, a seed.

    columns: what condition takes beside them.
    """

    skeletons: np.ndarray
    image: np.ndarray
    seed: int
    columns: Mapping[str, object] = field(default_factory=dict)


BASE = "torch:fp32"


def compare(
    generator: Generator,
    clip: Clip,
    variants: Sequence[str],
    device: str,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, dict]:
    """Return figures of each variant by its text, of the base, eager torch in fp32, first.

    A variant is a backend with precisions, as openvino:bf16 or onnxruntime:fp32,denoise=int8-fp32. A round
    runs every variant once, after one run of each that does not count. speedup is the median over rounds of
    the base's seconds by the variant's own. A variant that cannot run here has only its reason, under
    "refused". EngineError: the base cannot run.
    """
    variants = list(dict.fromkeys([BASE, *map(_with_precision, variants)]))
    figures: dict[str, dict] = {}
    with _all_started(generator, variants, device, figures) as running:

        def run(variant: str) -> tuple[float, np.ndarray]:
            start = time.perf_counter()
            made = generate(
                generator, running[variant], clip.skeletons, clip.image, clip.seed, None, clip.columns
            )
            return time.perf_counter() - start, made

        frames = {}
        for variant in running:
            say(f"warm-up {variant}")
            frames[variant] = run(variant)[1]
        seconds: dict[str, list[float]] = {variant: [] for variant in running}
        runs = {variant: partial(run, variant) for variant in running}
        for variant, number, (took, _) in interleave(runs, rounds):
            say(f"round {number} of {rounds}: {variant}: {took:.1f} s")
            seconds[variant].append(took)
    for variant in running:
        error = frames[variant].astype(np.float32) - frames[BASE]
        figures[variant] |= {
            "speedup": round(median_ratio(seconds[BASE], seconds[variant]), 3),
            "seconds_p50": round(statistics.median(seconds[variant]), 4),
            "seconds": [round(s, 4) for s in seconds[variant]],
            "psnr_to_base": None if variant == BASE else round(psnr(error), 2),
            "temporal_error": round(temporal_error(error), 4),
        }
    return figures


def table(figures: dict[str, dict]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| way | speed against torch eager | PSNR to base, dB | temporal error, levels | start, s |",
        "|---|---|---|---|---|",
    ]
    for variant, row in figures.items():
        if "refused" in row:
            lines.append(f"| {variant} | {row['refused']} | | | |")
            continue
        distance = "the base" if row["psnr_to_base"] is None else f"{row['psnr_to_base']:.1f}"
        lines.append(
            f"| {variant} | {row['speedup']:.2f} | {distance} | {row['temporal_error']:.3f} | "
            f"{row['start_seconds']:.1f} |"
        )
    return "\n".join(lines)


def _with_precision(variant: str) -> str:
    """Return a variant with its precision, which is fp32 if it names none."""
    backend, _, precision = variant.partition(":")
    return f"{backend}:{precision or 'fp32'}"


@contextmanager
def _all_started(
    generator: Generator, variants: Sequence[str], device: str, figures: dict[str, dict]
) -> Iterator[dict[str, Engines]]:
    folder: Path = built_folder(generator.name)
    running: dict[str, Engines] = {}
    chosen = {each: choose_precisions(each.partition(":")[2], generator.components) for each in variants}
    try:
        for variant, precisions in chosen.items():
            start = time.perf_counter()
            try:
                choice = Choice(variant.partition(":")[0], precisions, device, folder)
                _, running[variant] = start_engines(generator, choice, lambda text: None)
            except EngineError as refusal:
                figures[variant] = {"refused": str(refusal).splitlines()[0]}
                continue
            figures[variant] = {"start_seconds": round(time.perf_counter() - start, 2)}
        if BASE not in running:
            raise EngineError(f"the base, {BASE}, cannot run: {figures[BASE]['refused']}")
        yield running
    finally:
        for engines in running.values():
            for engine in engines.values():
                engine.close()
