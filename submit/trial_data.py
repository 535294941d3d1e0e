"""Make data folders for trials: the given one without its answers, and videos unlike any that were given."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from pipeline.batch.data_folder import list_requests
from pipeline.batch.dataset import Request, find_requests, first_requests
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


def copy_without_outputs(data: Path, folder: Path) -> list[Request]:
    """Copy videos/, images/ and pairs.csv of a data folder, which may be read-only; the copy's requests.

    Files that pairs.csv names elsewhere are copied into the two folders, and named anew. InputError: it lists
    no pairs that can be read.
    """
    for part in ("videos", "images"):
        shutil.copytree(
            data / part, folder / part, copy_function=shutil.copyfile, ignore_dangling_symlinks=True
        )
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o755)
    requests = [_brought(request, data, folder) for request in find_requests(data).requests]
    if (data / "pairs.csv").is_file():
        shutil.copyfile(data / "pairs.csv", folder / "pairs.csv")
        if find_requests(folder).requests != requests:
            list_requests(requests, folder)
    return requests


def _brought(request: Request, data: Path, folder: Path) -> Request:
    """Return a request of a data folder as one of another, to which its files are copied if need be."""
    return replace(
        request,
        video=_placed(request.video, data / "videos", folder / "videos"),
        image=_placed(request.image, data / "images", folder / "images"),
        pictures=_pictures(request, data, folder),
    )


def _pictures(request: Request, data: Path, folder: Path) -> dict[str, Path]:
    return {
        name: _placed(path, data / "images", folder / "images") for name, path in request.pictures.items()
    }


def _placed(path: Path, source: Path, target: Path) -> Path:
    """Return where a file of one folder is in another, to which it is copied if it is not there yet.

    One that lies elsewhere gets a name made of its path.
    """
    name = path.relative_to(source) if path.is_relative_to(source) else Path("..")
    if ".." in name.parts:
        name = Path(hashlib.sha256(os.fsencode(path)).hexdigest()[:16] + path.suffix)
    if not (target / name).exists():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    return target / name


def make_unseen(data: Path, folder: Path, size: tuple[int, int], draws: random.Random) -> Unseen:
    """Make two skeleton videos that nobody can know: of two given ones, from a moment and for a seed drawn.

    One is longer than those given, of odd size and rate; one is mirrored and of another length. size: of a
    finished video, which their outputs must have too. InputError: no picture matches any video.
    """
    requests = first_requests(data)
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
    made = [
        replace(
            request,
            id=name,
            video=unseen.skeletons[name],
            image=person,
            seed=draws.randrange(2**31),
            pictures=_pictures(request, data, folder),
        )
        for name, request in ((ODD_NAME, drawn[0]), (MIRRORED, drawn[-1]))
    ]
    list_requests(made, folder)
    given = copy_without_outputs(data, unseen.among)
    list_requests([*given, *(_brought(each, folder, unseen.among) for each in made)], unseen.among)
    return unseen


def _opening(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.stack(list(islice(reader, MOST)))


def _write(path: Path, frames: np.ndarray, fps: Fraction, count: int, draws: random.Random) -> None:
    """Write that many frames from a moment drawn, there and back as often as that takes."""
    (height, width), begin = frames.shape[1:3], draws.randrange(len(frames))
    with VideoWriter(path, width, height, fps, lossless=True) as writer:
        for frame in islice(cycle([*frames, *frames[-2:0:-1]]), begin, begin + count):
            writer.write(frame)


def _picture(source: Path, target: Path) -> None:
    from PIL import Image

    Image.fromarray(read_image(source)).save(target)
