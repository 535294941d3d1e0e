"""Some frames of a video, spread over all of it, as many as the time allows."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engines.errors import InputError
from pipeline.video.ffmpeg import Ffmpeg, rgb_output, strict_input
from pipeline.video.info import STALL_SECONDS, VideoInfo
from pipeline.video.reader import VideoReader

WALKED = 900  # frames: decoding so many in a row is faster than finding each of some dozens
MATROSKA = b"\x1a\x45\xdf\xa3"


def sample(path: Path, count: int, seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    """Number and picture (H, W, 3) uint8 of at most count frames; none begins after seconds, save the first.

    Pixels are square. A short video is decoded from end to end. In a long MP4 or Matroska file each frame is
    looked up, in an order that covers the video at any time: the middle first, then the quarters. InputError:
    the video is damaged.
    """
    deadline = time.monotonic() + seconds
    with VideoReader(path, square=True) as reader:
        frames = reader.info.frames
        if frames > WALKED and _indexed(path):
            for number in scattered(frames, count):
                yield number, frame_at(path, reader.info, number)
                if time.monotonic() > deadline:
                    return
            return
        wanted = set(scattered(frames, count))
        for number, frame in enumerate(reader):
            if number in wanted:
                yield number, frame
                if time.monotonic() > deadline:
                    return


def scattered(frames: int, count: int) -> list[int]:
    """At most count different numbers of frames: halves, then quarters, ... (van der Corput's sequence)."""
    found: dict[int, None] = {}
    for n in range(1, 4 * count):
        place, share = 0.0, 0.5
        while n:
            place, share, n = place + share * (n & 1), share / 2, n >> 1
        found.setdefault(int(place * frames))
        if len(found) == min(count, frames):
            break
    return list(found)


def frame_at(path: Path, info: VideoInfo, number: int) -> np.ndarray:
    """The picture of a frame with square pixels, found by its time; InputError if it cannot be decoded."""
    (width, height), begins = info.square, info.begins
    seek = ["-ss", f"{(begins[number - 1] + begins[number]) / 2:.6f}"] if number else []
    raw = ["-frames:v", "1", *rgb_output(width, height)]
    child = Ffmpeg(
        [*seek, *strict_input(path), "-map", "0:V:0", *raw, "pipe:1"], STALL_SECONDS, stdout=subprocess.PIPE
    )
    picture = np.empty((height, width, 3), np.uint8)
    try:
        with child.watched():
            got = child.process.stdout.readinto(picture.data.cast("B"))
        if child.wait() or got < picture.nbytes:
            raise InputError(f"{path}: frame {number} cannot be decoded ({child.reason()}); make it again")
        return picture
    finally:
        child.close()


def _indexed(path: Path) -> bool:
    """Whether frames are found exactly by their times; in MPEG-TS and others ffmpeg lands seconds later."""
    with path.open("rb") as file:
        begin = file.read(8)
    return begin[4:] == b"ftyp" or begin.startswith(MATROSKA)
