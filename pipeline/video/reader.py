"""Read videos so that damage and missing frames are errors; also re-export the writer and read_image.

It runs imageio-ffmpeg's ffmpeg program, but not that package's own reader, which returns a shorter clip for a
truncated file without an error.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import InputError, OutputError, ProgramKilled, check_file
from pipeline.video.colours import Colours
from pipeline.video.ffmpeg import Ffmpeg, evenly_spaced, rgb_output, strict_input, tick, timestamps
from pipeline.video.image import read_image
from pipeline.video.mp4_boxes import check_whole, frames_in_header
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
MAX_PIXELS = 7680 * 4320  # of one frame
STALL_SECONDS = 30.0  # without a new frame
HEADER_LINES = 50  # lines of a listing beside those of the frames, at most


@dataclass(frozen=True)
class VideoInfo:
    """The format of a video: size of the decoded frames in pixels (rotation applied), frames per second.

    variable_rate: the frames are unevenly spaced, and fps is their average. packets: compressed frames in the
    file, an estimate for memory and progress: only decoding gives the number of frames.
    """

    width: int
    height: int
    fps: Fraction
    variable_rate: bool
    packets: int


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


def _rate(times: list[int], unit: Fraction, nominal: Fraction) -> tuple[Fraction, bool]:
    """Return frames per second, and whether the frames are unevenly spaced.

    times: of the frames, in ticks of unit seconds. nominal: the stream's own rate, which is returned if the
    times agree with it; else the average rate is.
    """
    times = sorted(set(times))
    if len(times) < 2 or evenly_spaced(times, unit, nominal):
        return nominal, False
    average = ((len(times) - 1) / ((times[-1] - times[0]) * unit)).limit_denominator(1001)
    return average, not evenly_spaced(times, unit, average)


def _first_look(path: Path, stall_seconds: float, max_frames: float) -> str:
    """Return a framecrc listing: all packets' times as stream 0, the first decoded frame as stream 1.

    InputError: it is not a video, or is longer than max_frames by its header or its packets, whose listing
    then stops. ProgramKilled: ffmpeg was killed from outside.
    """
    if (frames_in_header(path) or 0) > max_frames:
        raise _too_long(path, max_frames)
    twice = ["-map", "0:V:0", "-map", "0:V:0", "-c:v:0", "copy", "-c:v:1", "rawvideo"]
    arguments = [*strict_input(path), *twice, "-filter:v:1", "trim=end_frame=1", "-f", "framecrc", "pipe:1"]
    child = Ffmpeg(arguments, stall_seconds, stdout=subprocess.PIPE)
    try:
        listing = child.listing(max_frames + HEADER_LINES)
        if listing.count("\n0,") > max_frames:
            raise _too_long(path, max_frames)
        failed = child.wait()
        if "matches no streams" in child.messages():
            raise InputError(f"{path}: has no video stream (only sound?). Expected a video; give another.")
        if child.killed:
            raise ProgramKilled(f"{path}: could not be looked at ({child.reason()}). Check free memory.")
        if failed or "\n0," not in listing or "\n1," not in listing:
            why = child.reason() if failed else "there is no frame in it"
            raise InputError(f"{path}: is not a video ({why}). Expected MP4, MKV or AVI; make it again.")
        return listing
    finally:
        child.close()


def _too_long(path: Path, max_frames: float) -> InputError:
    return InputError(f"{path}: has more than {max_frames} frames, the limit. Cut it into parts.")


def probe(
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    max_frames: float = math.inf,
    stall_seconds: float = STALL_SECONDS,
) -> VideoInfo:
    """Return a video's format, from all its packets and its first frame (40 ms for 480 frames of 720p).

    Exact rates such as 30000/1001 stay exact, because times are listed as integers. InputError: no file,
    empty, not a video, no video stream (cover art of a sound file does not count), no frame, a truncated MP4,
    frames above max_pixels, or more than max_frames of them.
    """
    path = Path(path)
    check_file(path, "video")
    check_whole(path)
    listing = _first_look(path, stall_seconds, max_frames)
    width, height = map(int, re.search(r"^#dimensions 1: (\d+)x(\d+)", listing, re.MULTILINE).groups())
    if width * height > max_pixels:
        size = f"frames of {width} x {height}, above the limit of {max_pixels} pixels"
        raise InputError(f"{path}: has {size}. Scale it down.")
    fps, variable = _rate(timestamps(listing, 0), tick(listing, 0), 1 / tick(listing, 1))
    return VideoInfo(width, height, fps, variable, listing.count("\n0,"))


def colours_of(path: Path) -> Colours:
    """Return how a video's pixels are coded. InputError: it is not a video."""
    nothing = ["-map", "0:V:0", "-c", "copy", "-t", "0", "-f", "null", "-"]
    child = Ffmpeg(["-v", "info", *strict_input(path), *nothing], STALL_SECONDS)
    try:
        child.wait()
        found = re.search(r"Stream #0.*Video: .*?, (\w+(?:\([^)]*\))?), \d+x\d+", child.stderr(1 << 20))
    finally:
        child.close()
    if not found:
        raise InputError(f"{path}: is not a video. Expected MP4, MKV or AVI; make it again.")
    return Colours.parse(found[1])


class VideoReader:
    """An iterator over every coded frame of a video once, as (H, W, 3) uint8 RGB, in constant memory.

    A second iteration starts again at the first frame, and ends an earlier one. Frames of variable-rate video
    are neither repeated nor dropped. Rotation is applied; sound, alpha and pixel aspect ratio are ignored.
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
    ) -> None:
        """Probe the file, see `probe`; decoding starts with the iteration."""
        self.path, self._max_frames, self._tag_blind = Path(path), max_frames, tag_blind
        self.info = probe(path, max_pixels=max_pixels, max_frames=max_frames, stall_seconds=stall_seconds)
        self.width, self.height, self.fps = self.info.width, self.info.height, self.info.fps
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
        arguments = [*strict_input(self.path), "-map", "0:V:0", *raw, "pipe:1"]
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
                    raise _too_long(self.path, self._max_frames)
                yield frame
            self._check_end(child, count, got)
        finally:
            child.close()

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
        notes, packets = [], self.info.packets
        if count != packets:  # a cut with an edit list, interlaced fields, or a frame lost in decoding
            notes.append(f"{self.path}: {count} frames from {packets} packets; see if that is right")
        if messages:
            notes.append(f"{self.path}: all was decoded, but ffmpeg said: {messages}")
        self.notes += tuple(note for note in notes if note not in self.notes)


def read(path: str | Path, *, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS) -> Clip:
    """Read a whole video into memory. InputError: as VideoReader, or more than max_frames frames."""
    with VideoReader(path, max_pixels=max_pixels, max_frames=max_frames) as reader:
        frames = np.empty((reader.info.packets, reader.height, reader.width, 3), np.uint8)
        count = 0
        for frame in reader:
            if count == len(frames):
                frames = np.concatenate([frames, np.empty_like(frames)])
            frames[count] = frame
            count += 1
        return Clip(frames[:count], reader.fps, reader.notes)
