"""Make data folders for trials: the given one without its answers, and videos unlike any that were given."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from pipeline.batch.dataset import find_requests, first_requests
from pipeline.video.image import read_image
from pipeline.video.reader import Form, VideoWriter, read

ODD_FPS = Fraction(24000, 1001)
ODD_NAME, ODD_PERSON = "视频 ü 1", "人 物"
LONGER = 5  # frames more than the longest video given
MOST = 200  # frames read of that one


@dataclass(frozen=True)
class Unseen:
    """A data folder of one video, whose person has another name, and what its output must be like."""

    folder: Path
    name: str
    form: Form


def copy_without_outputs(data: Path, folder: Path) -> None:
    """Copy videos/, images/ and pairs.csv of a data folder."""
    for part in ("videos", "images"):
        shutil.copytree(data / part, folder / part)
    if (data / "pairs.csv").is_file():
        shutil.copyfile(data / "pairs.csv", folder / "pairs.csv")


def make_unseen(data: Path, folder: Path, size: tuple[int, int]) -> Unseen:
    """Make a skeleton video, longer than those given, of odd size and rate, its name with 视频 and a space.

    size: of a finished video, which this one's output must have too.
    """
    clips = [read(request.video) for request in find_requests(data).requests]
    longest = max(clips, key=lambda clip: len(clip.frames))
    count = min(len(longest.frames), MOST) + LONGER
    video = folder / "videos" / f"{ODD_NAME}.mp4"
    (folder / "images").mkdir(parents=True)
    video.parent.mkdir()
    frames = longest.frames[:MOST]
    height, width = (side - 1 + side % 2 for side in frames.shape[1:3])
    there_and_back = [*frames, *frames[-2:0:-1]]
    with VideoWriter(video, width, height, ODD_FPS, lossless=True) as writer:
        for frame in islice(cycle(there_and_back), count):
            writer.write(np.ascontiguousarray(frame[:height, :width]))
    _picture(first_requests(data, 1)[0].image, folder / "images" / f"{ODD_PERSON}.png")
    return Unseen(folder, ODD_NAME, Form(count, ODD_FPS, size))


def _picture(source: Path, target: Path) -> None:
    from PIL import Image

    Image.fromarray(read_image(source)).save(target)
