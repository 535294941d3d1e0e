"""Read videos so that damage and missing frames are errors; also re-export the writer and read_image.

It runs imageio-ffmpeg's ffmpeg program, but not that package's own reader, which returns a shorter clip for a
truncated file without an error.
"""

from __future__ import annotations

import itertools
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import InputError, OutputError, ProgramKilled, check_file
from pipeline.video.colours import Colours
from pipeline.video.ffmpeg import Ffmpeg, rgb_output, strict_input
from pipeline.video.image import read_image
from pipeline.video.info import (
    MAX_PIXELS,
    STALL_SECONDS,
    VideoInfo,
    decoded_times,
    no_video,
    pixel_limit,
    probe,
    too_large,
    too_long,
)
from pipeline.video.times import at_rate
from pipeline.video.writer import VideoWriter

__all__ = [
    "Clip",
    "InputError",
    "OutputError",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "probe",
    "read",
    "read_image",
]

MAX_FRAMES = 5_000  # of a clip held in memory: 14 GB at 720 x 1280


@dataclass(frozen=True)
class Clip:
    """A video in memory: frames (F, H, W, 3) uint8 RGB with F >= 1, frames per second, notes for the user."""

    frames: np.ndarray
    fps: Fraction
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.frames.shape[2]

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.frames.shape[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the frames one by one, like a VideoReader."""
        return iter(self.frames)


@dataclass(frozen=True)
class Form:
    """The format that two videos must share: frame count, frames per second, (width, height) in pixels."""

    frames: int
    fps: Fraction
    size: tuple[int, int]

    @classmethod
    def of(cls, clip: Clip) -> Form:
        """Return the form of a clip."""
        return cls(len(clip.frames), clip.fps, (clip.width, clip.height))


def colours_of(path: Path) -> Colours:
    """Return how a video's pixels are coded. InputError: it is not a video, or cannot be read."""
    check_file(path, "video")
    nothing = ["-map", "0:V:0", "-c", "copy", "-t", "0", "-f", "null", "-"]
    child = Ffmpeg(["-v", "info", *pixel_limit(MAX_PIXELS), *strict_input(path), *nothing], STALL_SECONDS)
    try:
        child.wait()
        found = re.search(r"Stream #0.*Video: .*?, (\w+(?:\([^)]*\))?), \d+x\d+", child.stderr(1 << 20))
    finally:
        child.close()
    if not found:
        raise no_video(path, "no picture is found")
    return Colours.parse(found[1])


class VideoReader:
    """An iterator over every frame of a video that is shown, as (H, W, 3) uint8 RGB, in constant memory.

    A second iteration starts again at the first frame, and ends an earlier one. Frames of variable-rate video
    are neither repeated nor dropped, but by at_rate; info.times says when they are shown. Rotation is
    applied; sound and alpha are ignored, and pixel aspect ratio is unless `square` asks for square pixels.
    Colours follow the file's tags; untagged video is taken as BT.601 at every size, as by ffmpeg; with
    tag_blind all video is, as by OpenCV 4. InputError: as `probe`, and in the iteration when the data is
    damaged, ends early, or does not come within stall_seconds. No reader can notice damage that is valid data
    again (H.264 and VP9 have no checksums), or a truncated AVI or TS file.
    notes: sentences for the user; complete after the iteration.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_pixels: int = MAX_PIXELS,
        max_frames: float = math.inf,
        stall_seconds: float = STALL_SECONDS,
        tag_blind: bool = False,
        square: bool = False,
    ) -> None:
        """Probe the file, see `probe`; decoding starts with the iteration."""
        self.path, self._max_frames, self._tag_blind = Path(path), max_frames, tag_blind
        self._max_pixels = max_pixels
        self.info = probe(path, max_pixels=max_pixels, max_frames=max_frames, stall_seconds=stall_seconds)
        self.fps = self.info.fps
        self.width, self.height = self.info.square if square else (self.info.width, self.info.height)
        if self.width * self.height > max_pixels:
            raise too_large(self.path, self.width, self.height, max_pixels)
        self.notes: tuple[str, ...] = ()
        if self.info.variable_rate:
            rate = f"the average of {float(self.fps):.3f} frames/s"
            self.notes = (f"{path}: variable frame rate; every frame is kept, at {rate}",)
        self._stall_seconds = stall_seconds
        self._child: Ffmpeg | None = None

    def __enter__(self) -> VideoReader:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop decoding."""
        self.close()

    def close(self) -> None:
        """Stop decoding, if it is running."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode from the first frame on; each array is new and belongs to the caller."""
        self.close()
        raw = ["-fps_mode", "passthrough", *rgb_output(self.width, self.height, self._tag_blind)]
        arguments = [
            *pixel_limit(self._max_pixels),
            *strict_input(self.path),
            "-map",
            "0:V:0",
            *raw,
            "pipe:1",
        ]
        child = self._child = Ffmpeg(arguments, self._stall_seconds, stdout=subprocess.PIPE)
        count = 0
        try:
            while True:
                frame = np.empty((self.height, self.width, 3), np.uint8)
                with child.watched():
                    got = child.process.stdout.readinto(frame.data.cast("B"))
                if got < frame.nbytes:
                    break
                count += 1
                if count > self._max_frames:
                    raise too_long(self.path, self._max_frames)
                yield frame
            self._check_end(child, count, got)
        finally:
            child.close()

    def at_rate(self, fps: Fraction) -> Iterator[np.ndarray]:
        """Give the frame that is shown at each time of a video of that rate; at its own, every frame.

        Frames beyond those that the packets announce last as long as the average one.
        """
        if self.info.variable_rate and fps != self.fps:
            shown = f"at {float(fps):.6g} frames/s each frame is the one that is shown at its time"
            self.notes = (f"{self.path}: variable frame rate; {shown}",)
        ends, each = self.info.ends(fps), fps / self.fps
        return at_rate(self, itertools.chain(ends, itertools.count(ends[-1] + each, each)))

    def _check_end(self, child: Ffmpeg, count: int, rest: int) -> None:
        """Raise InputError if decoding stopped before the video's end, and add notes on what is odd.

        count: frames that were read. rest: bytes of an incomplete last one. A truncated Matroska file ends
        with code 0 and a message. ProgramKilled: ffmpeg was killed from outside.
        """
        failed = child.wait()
        messages = child.messages()
        if child.killed:
            what = f"reading stopped after {count} frames ({child.reason()})"
            raise ProgramKilled(f"{self.path}: {what}. Check free memory.")
        if failed or rest or not count or "prematurely" in messages:
            raise InputError(
                f"{self.path}: is damaged or truncated after {count} good frames ({child.reason()}). "
                "Expected a whole video; copy or make it again."
            )
        notes, listed = [], self.info.frames
        if count != listed:  # interlaced fields, or a frame lost in decoding
            notes.append(f"{self.path}: {count} frames from {listed} packets; see if that is right")
            times = decoded_times(self.path, self.info.times, self._stall_seconds, self._max_pixels)
            self.info = replace(self.info, times=times)
        if messages:
            notes.append(f"{self.path}: all was decoded, but ffmpeg said: {messages}")
        self.notes += tuple(note for note in notes if note not in self.notes)


def read(path: str | Path, *, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS) -> Clip:
    """Read a whole video into memory. InputError: as VideoReader, or more than max_frames frames."""
    with VideoReader(path, max_pixels=max_pixels, max_frames=max_frames) as reader:
        frames = np.empty((reader.info.frames, reader.height, reader.width, 3), np.uint8)
        count = 0
        for frame in reader:
            if count == len(frames):
                frames = np.concatenate([frames, np.empty_like(frames)])
            frames[count] = frame
            count += 1
        return Clip(frames[:count], reader.fps, reader.notes)
