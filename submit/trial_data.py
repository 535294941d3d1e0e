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
MIRRORED = "mirrored"
LONGER = 5  # frames more than the longest video given
MOST = 200  # frames read of that one


@dataclass(frozen=True)
class Unseen:
    """A data folder that nobody has seen: a video of odd form, and MIRRORED; form: of the first's output."""

    folder: Path
    name: str
    form: Form

    @property
    def skeletons(self) -> dict[str, Path]:
        """Return its skeleton videos by id."""
        return {name: self.folder / "videos" / f"{name}.mp4" for name in (self.name, MIRRORED)}


def copy_without_outputs(data: Path, folder: Path) -> None:
    """Copy videos/, images/ and pairs.csv of a data folder."""
    for part in ("videos", "images"):
        shutil.copytree(data / part, folder / part)
    if (data / "pairs.csv").is_file():
        shutil.copyfile(data / "pairs.csv", folder / "pairs.csv")


def make_unseen(data: Path, folder: Path, size: tuple[int, int], seed: int) -> Unseen:
    """Make two skeleton videos whose person has another name, for another seed.

    One is longer than those given, of odd size and rate, its name with 视频 and a space; one is the shortest
    of them, mirrored and of another length. size: of a finished video, which their outputs must have too.
    """
    clips = [read(request.video) for request in find_requests(data).requests]
    longest = max(clips, key=lambda clip: len(clip.frames))
    shortest = min(clips, key=lambda clip: len(clip.frames))
    count = min(len(longest.frames), MOST) + LONGER
    (folder / "images").mkdir(parents=True)
    (folder / "videos").mkdir()
    unseen = Unseen(folder, ODD_NAME, Form(count, ODD_FPS, size))
    frames = longest.frames[:MOST]
    height, width = (side - 1 + side % 2 for side in frames.shape[1:3])
    _write(unseen.skeletons[ODD_NAME], frames[:, :height, :width], ODD_FPS, count)
    fewer = len(shortest.frames) * 2 // 3 or 2
    _write(unseen.skeletons[MIRRORED], shortest.frames[:MOST, :, ::-1], shortest.fps, min(fewer, MOST))
    _picture(first_requests(data, 1)[0].image, folder / "images" / f"{ODD_PERSON}.png")
    lines = (f"{name},{name}.mp4,{ODD_PERSON}.png,{seed}\n" for name in unseen.skeletons)
    (folder / "pairs.csv").write_text(f"id,video,image,seed\n{''.join(lines)}", encoding="utf-8")
    return unseen


def _write(path: Path, frames: np.ndarray, fps: Fraction, count: int) -> None:
    """Write that many frames, there and back as often as that takes."""
    height, width = frames.shape[1:3]
    with VideoWriter(path, width, height, fps, lossless=True) as writer:
        for frame in islice(cycle([*frames, *frames[-2:0:-1]]), count):
            writer.write(np.ascontiguousarray(frame))


def _picture(source: Path, target: Path) -> None:
    from PIL import Image

    Image.fromarray(read_image(source)).save(target)
