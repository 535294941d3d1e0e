"""Say what a video is, its size, rate and times, from all its packets and its first frame."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import InputError, ProgramKilled, check_file
from pipeline.video.ffmpeg import Ffmpeg, strict_input, tick
from pipeline.video.mp4_boxes import check_whole, frames_in_header
from pipeline.video.times import Times, check_rate

MAX_PIXELS = 7680 * 4320  # of one frame
STALL_SECONDS = 30.0  # without a new frame
ROUNDED = Fraction(1, 2000)  # of a second: what times in Matroska, whole milliseconds, are off by
HEADER_LINES = 50  # lines of a listing beside those of the frames, at most
USE_BOTH = ["-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "null", "-"]


@dataclass(frozen=True)
class VideoInfo:
    """The format of a video: size of the decoded frames in pixels (rotation applied), frames per second.

    variable_rate: the frames are unevenly spaced, and fps is their average. times: when each frame is shown;
    only decoding surely gives their number. pixel_aspect: width of a pixel by its height.
    """

    width: int
    height: int
    fps: Fraction
    variable_rate: bool
    times: Times = field(compare=False, repr=False)
    pixel_aspect: Fraction = Fraction(1)

    @property
    def frames(self) -> int:
        """Number of frames that are shown."""
        return len(self.times)

    @property
    def begins(self) -> np.ndarray:
        """When each frame begins to be shown, and when the last one ends (N + 1,), in seconds of the file."""
        return self.times.seconds(self.times.densest() if self.variable_rate else self.fps)

    def ends(self, fps: Fraction) -> list[Fraction]:
        """Return when each frame's time ends, counted from the first one's begin in frames of that rate.

        At the video's own rate all frames last equally long, as they do in a video that keeps each of them.
        """
        if not self.variable_rate or fps == self.fps:
            return [number * fps / self.fps for number in range(1, self.frames + 1)]
        first, *others = self.times.ticks.tolist()
        ends = [(tick - first) * self.times.unit for tick in others]
        ends.append(ends[-1] + 1 / self.times.densest())
        return [(end - ROUNDED) * fps for end in ends]

    @property
    def square(self) -> tuple[int, int]:
        """Width and height of the same picture with square pixels; none are lost."""
        aspect = self.pixel_aspect
        return round(self.width * max(1, aspect)), round(self.height * max(1, 1 / aspect))


def pixel_limit(max_pixels: int) -> list[str]:
    """Return ffmpeg's arguments to refuse larger frames undecoded; twice the limit, for frames are padded."""
    return ["-max_pixels", str(min(2 * max_pixels, 2**31 - 1))]


def too_long(path: Path, max_frames: float) -> InputError:
    """Return the error for a video of too many frames."""
    return InputError(f"{path}: has more than {max_frames} frames, the limit. Cut it into parts.")


def too_large(path: Path, width: int, height: int, max_pixels: int) -> InputError:
    """Return the error for a video of too large frames."""
    size = f"frames of {width} x {height}, above the limit of {max_pixels} pixels"
    return InputError(f"{path}: has {size}. Scale it down.")


def no_video(path: Path, why: str) -> InputError:
    """Return the error for a file that is no video."""
    return InputError(f"{path}: is not a video ({why}). Expected MP4, MKV or AVI; make it again.")


def probe(
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    max_frames: float = math.inf,
    stall_seconds: float = STALL_SECONDS,
    total_seconds: float = math.inf,
) -> VideoInfo:
    """Return a video's format, from all its packets and its first frame (40 ms for 480 frames of 720p).

    Exact rates such as 30000/1001 stay exact, because times are listed as integers. InputError: no file,
    empty, not a video, no video stream (cover art of a sound file does not count), no frame, a truncated MP4,
    frames above max_pixels (most are refused before they are decoded), more than max_frames of them, a rate
    that cannot be written, or that took longer than total_seconds.
    """
    path = Path(path)
    try:
        return _probe(path, max_pixels, max_frames, stall_seconds, time.monotonic() + total_seconds)
    except TimeoutError as error:
        how = "Cut it into parts, or encode it as H.264 in MP4, which is looked at without decoding it"
        raise InputError(f"{path}: took more than {total_seconds:g} s to look at. {how}.") from error


def _probe(path: Path, max_pixels: int, max_frames: float, stall_seconds: float, until: float) -> VideoInfo:
    check_file(path, "video")
    check_whole(path)
    if (frames_in_header(path) or 0) > max_frames:
        raise too_long(path, max_frames)
    twice = ["-map", "0:V:0", "-map", "0:V:0", "-c:v:0", "copy", "-c:v:1", "rawvideo"]
    look = [*twice, "-filter:v:1", "trim=end_frame=1"]
    listing = _listing(path, look, stall_seconds, max_pixels, max_frames + HEADER_LINES, until=until)
    if listing.count("\n0,") > max_frames:
        raise too_long(path, max_frames)
    if "\n0," not in listing or "\n1," not in listing:
        raise no_video(path, "there is no frame in it")
    header = dict(re.findall(r"^#(dimensions|sar) 1: (\S+)", listing, re.MULTILINE))
    width, height = map(int, header["dimensions"].split("x"))
    if width * height > max_pixels:
        raise too_large(path, width, height, max_pixels)
    across, down = map(int, header.get("sar", "1/1").split("/"))
    times, sure = Times.of_packets(listing)
    if not sure:
        times = decoded_times(path, times, stall_seconds, max_pixels, until)
    fps, variable = times.rate(1 / tick(listing, 1))
    check_rate(path, fps)
    return VideoInfo(width, height, fps, variable, times, Fraction(across or 1, down or 1))


def decoded_times(
    path: Path, times: Times, stall_seconds: float, max_pixels: int, until: float = math.inf
) -> Times:
    """Return when the frames of a video are shown, in the unit of `times`, by decoding them all.

    TimeoutError: that goes on at `until`, by time.monotonic.
    """
    decode = ["-map", "0:V:0", "-fps_mode", "passthrough", "-enc_time_base", "1:1000000"]
    return times.decoded(_listing(path, decode, stall_seconds, max_pixels, refuse=damaged, until=until))


def damaged(path: Path, why: str) -> InputError:
    """Return the error for a video that does not decode to its end."""
    return InputError(
        f"{path}: is damaged or truncated ({why}). Expected a whole video; copy or make it again."
    )


def _listing(
    path: Path,
    wanted: list[str],
    stall_seconds: float,
    max_pixels: int,
    most: float = math.inf,
    refuse: Callable[[Path, str], InputError] = no_video,
    until: float = math.inf,
) -> str:
    """Return a framecrc listing of what ffmpeg's arguments want of a file, up to `most` lines or a few more.

    InputError: `refuse`, or the file has larger frames. ProgramKilled: ffmpeg was killed from outside.
    TimeoutError: it ran until `until`.
    """
    opened = [*pixel_limit(max_pixels), *strict_input(path), *wanted, "-f", "framecrc", "pipe:1"]
    # Sound is used too: in MPEG-TS, ffmpeg counts time from the first packet of what is used. A track that is
    # only announced cannot be used, and then there is none that the picture has to agree with.
    for use in (USE_BOTH, []):
        child = Ffmpeg([*opened, *use], stall_seconds, stdout=subprocess.PIPE, until=until)
        try:
            listing = child.listing(most)
            if listing.count("\n") >= most or not child.wait():
                return listing
            why, text, stopped = child.reason(), child.stderr(), child.process.returncode < 0
            if stopped and time.monotonic() >= until:
                raise TimeoutError
            if child.killed:
                raise ProgramKilled(f"{path}: could not be looked at ({why}). Check free memory.")
        finally:
            child.close()
        if "matches no streams" in text:
            raise InputError(f"{path}: has no video stream (only sound?). Expected a video; give another.")
        if size := re.search(r"Picture size (\d+)x(\d+) exceeds", text):
            raise too_large(path, int(size[1]), int(size[2]), max_pixels)
        if stopped:
            break
    raise refuse(path, why)
