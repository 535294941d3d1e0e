"""Make a data folder of rendered pairs, as the contest gives them: skeleton videos, people's pictures."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from lab.presenter.evaluate import HELD_OUT_SEED
from lab.presenter.render.clip import FPS, Clip
from pipeline.video.writer import VideoWriter

WriteVideo = Callable[[Path, np.ndarray], None]

# id: seed and frames; these seeds are below TRAINING_SEEDS, so no network has seen the people
SAMPLES = {"ada": (12, 24), "ben": (14, 28), "chloe": (21, 40), "dev": (27, 40), "emma": (33, 64)}


def held_out_samples(count: int, frames: int, first: int = 0) -> dict[str, tuple[int, int]]:
    """The evaluation's held-out people from one on, for write_sample_data: nothing was trained on them."""
    numbers = range(first, first + count)
    return {f"held-out-{number:02}": (HELD_OUT_SEED + number, frames) for number in numbers}


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Write frames as a video, for write_sample_data."""
    with VideoWriter(path, frames.shape[2], frames.shape[1], Fraction(FPS)) as writer:
        for frame in frames:
            writer.write(frame)


def write_sample_data(
    folder: Path, write_video: WriteVideo, samples: dict[str, tuple[int, int]] = SAMPLES
) -> None:
    """videos/<id>.mp4 and images/<id>.png for each sample; infer.py makes outputs/ of them.

    write_video writes frames (F, H, W, 3) uint8 to a path at the renderer's rate.
    """
    for part in ("videos", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, (seed, frames) in samples.items():
        clip = Clip(seed)
        Image.fromarray(clip.reference()).save(folder / "images" / f"{name}.png", optimize=True)
        write_video(folder / "videos" / f"{name}.mp4", clip.skeletons(clip.times(frames)))
