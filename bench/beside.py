"""Give a distance from the base model's video a scale: that of another seed, and of the base made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bench.checks import Check
from bench.frame_metrics import psnr_of
from bench.local import Local
from engines.errors import InputError
from pipeline.video.reader import VideoReader

ANOTHER_SEED, AGAIN = "another seed", "the base again"
NEARER = 0.75  # of another seed's error of structure is the most that the same video has
SHOWN = ("structure", "structure_block", "colour_block")


def distance(reference: Iterable[np.ndarray], other: Iterable[np.ndarray]) -> dict[str, float | None]:
    """Return PSNR in dB, None for equal frames, and bench/local.py's measures of two videos.

    A longer one counts up to the other's end. ValueError: no frames, or of different sizes.
    """
    local, squared = Local(), []
    for wanted, found in zip(reference, other, strict=False):
        if wanted.shape != found.shape:
            raise ValueError(f"frames of {wanted.shape} and {found.shape} cannot be compared")
        local.update(wanted, found)
        squared.append(float(np.square(found.astype(np.float32) - wanted, dtype=np.float64).mean()))
    if not squared:
        raise ValueError("there are no frames to compare")
    figures = local.summary()
    return {"psnr": psnr_of(float(np.mean(squared))), **{name: figures[name] for name in SHOWN}}


def distance_of_files(reference: Path, other: Path) -> dict[str, float | None]:
    """Return the distance of two video files. InputError: one cannot be read, or they are not of one size."""
    with VideoReader(reference) as wanted, VideoReader(other) as found:
        try:
            return distance(wanted, found)
        except ValueError as error:
            raise InputError(f"{other} and {reference}: {error}") from error


def nearer(metrics: Mapping[str, float | None], other: Mapping[str, float | None], path: Path) -> Check:
    """Check that a candidate's lines and folds lie nearer to the base's than those of another seed.

    path: of the other video. InputError: it is the base's own.
    """
    if other["psnr"] is None:
        raise InputError(f"{path}: equals the reference; make it with another --seed")
    value, limit = metrics["structure"], NEARER * other["structure"]
    said = f"{value:.4g}"
    if value > limit:
        said += f" (no nearer to the base than another seed, which has {other['structure']:.4g})"
    return Check("structure beside another seed's", said, f"<= {limit:.4g}", value <= limit)
