"""Make data folders for trials: the given one without its answers, and videos unlike any that were given."""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from pipeline.batch.dataset import Request, find_requests
from pipeline.video.image import read_image
from pipeline.video.info import probe
from pipeline.video.reader import Form, VideoReader, VideoWriter

ODD_FPS = Fraction(24000, 1001)
ODD_NAME, ODD_PERSON = "视频 ü 1", "人 物"
MIRRORED = "视频 ü mirrored"  # none of these is a name of given data
LONGER = 5  # frames more than the longest video given
MOST = 200  # frames read of a video


@dataclass(frozen=True)
class Unseen:
    """A data folder that nobody has seen: a video of odd form, and MIRRORED; form: of the first's output.

    among: a folder of the given data with these two. share: of them in the work that the given data is.
    """

    folder: Path
    among: Path
    name: str
    form: Form
    share: float

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


def make_unseen(data: Path, folder: Path, size: tuple[int, int], draws: random.Random) -> Unseen:
    """Make two skeleton videos that nobody can know: of two given ones, from a moment and for a seed drawn.

    One is longer than those given, of odd size and rate; one is mirrored and of another length. size: of a
    finished video, which their outputs must have too.
    """
    requests = find_requests(data).requests
    drawn = draws.sample(requests, min(2, len(requests)))
    lengths = [probe(request.video).frames for request in requests]
    count = min(max(lengths), MOST) + LONGER
    (folder / "images").mkdir(parents=True)
    (folder / "videos").mkdir()
    one, other = (_opening(request.video) for request in (drawn[0], drawn[-1]))
    fewer = len(other) * 2 // 3 or 2
    share = max((count + fewer) / sum(lengths), 2 / len(lengths))
    unseen = Unseen(folder, folder.with_name("among"), ODD_NAME, Form(count, ODD_FPS, size), share)
    height, width = (side - 1 + side % 2 for side in one.shape[1:3])
    _write(unseen.skeletons[ODD_NAME], one[:, :height, :width], ODD_FPS, count, draws)
    fps = probe(drawn[-1].video).fps
    _write(unseen.skeletons[MIRRORED], other[:, :, ::-1], fps, fewer, draws)
    person = folder / "images" / f"{ODD_PERSON}.png"
    _picture(drawn[0].image, person)
    for path in (each for request in drawn for each in request.pictures.values()):
        shutil.copyfile(path, folder / "images" / path.name)
    made = [
        replace(request, id=name, video=unseen.skeletons[name], image=person, seed=draws.randrange(2**31))
        for name, request in ((ODD_NAME, drawn[0]), (MIRRORED, drawn[-1]))
    ]
    _list(made, folder)
    copy_without_outputs(data, unseen.among)
    for part in ("videos", "images"):
        shutil.copytree(folder / part, unseen.among / part, dirs_exist_ok=True)
    _list([*requests, *made], unseen.among)
    return unseen


def _list(requests: Sequence[Request], folder: Path) -> None:
    """Write pairs.csv, with all that requests have."""
    rows = [
        {"id": each.id, "video": each.video.name, "image": each.image.name, "seed": each.seed,
         **{name: path.name for name, path in each.pictures.items()}, **each.columns}
        for each in requests
    ]  # fmt: skip
    names = dict.fromkeys(name for row in rows for name in row)
    (folder / "pairs.csv").unlink(missing_ok=True)
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _opening(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.stack(list(islice(reader, MOST)))


def _write(path: Path, frames: np.ndarray, fps: Fraction, count: int, draws: random.Random) -> None:
    """Write that many frames from a moment drawn, there and back as often as that takes."""
    (height, width), begin = frames.shape[1:3], draws.randrange(len(frames))
    with VideoWriter(path, width, height, fps, lossless=True) as writer:
        for frame in islice(cycle([*frames, *frames[-2:0:-1]]), begin, begin + count):
            writer.write(np.ascontiguousarray(frame))


def _picture(source: Path, target: Path) -> None:
    from PIL import Image

    Image.fromarray(read_image(source)).save(target)
