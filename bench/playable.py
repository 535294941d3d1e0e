"""Copy lossless videos so that browsers show their true colours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.video.reader import VideoReader, VideoWriter


def playable(paths: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Make an ordinary video in the folder for each H.264 video of RGB values; one that is there is kept.

    Chromium plays such videos, and takes red, green and blue for luma and chroma. Widths and heights that are
    odd get their last column or row twice. InputError, OutputError.
    """
    copies = {}
    for path in paths:
        name = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        copies[path] = folder / f"{name}.mp4"
        if not copies[path].is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _copy(path, copies[path])
    return copies


def _copy(path: Path, target: Path) -> None:
    with VideoReader(path) as reader:
        odd = reader.height % 2, reader.width % 2
        width, height = reader.width + odd[1], reader.height + odd[0]
        with VideoWriter(target, width, height, reader.fps, preset="veryfast") as writer:
            for frame in reader:
                writer.write(np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), "edge"))
