"""How loud a video is over time, and how sound gets into another one."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np

from engines.errors import InputError, OutputError
from engines.files import atomic_write
from pipeline.video.ffmpeg import Ffmpeg, strict_input
from pipeline.video.info import STALL_SECONDS

RATE = 8000  # samples a second that loudness is measured on
QUIETEST = -60.0  # decibels below full scale; what is less is silence
# Silence where there is no sound yet, or a gap: then samples count time from the start of the file.
IN_TIME = "aresample=async=1:first_pts=0"
USED_TOO = ["-c", "copy", "-f", "null", "-"]  # picture, for the start of the file: see pipeline.video.info


def loudness(path: Path, ticks: float, start: float = 0.0) -> np.ndarray | None:
    """Level of each of `ticks` parts of a second in decibels, -60 to 0; None if the video has no sound.

    start: seconds of the file before the first part. Read in pieces, in constant memory. InputError: the
    sound is damaged.
    """
    raw = ["-map", "0:a:0", "-af", IN_TIME, "-ac", "1", "-ar", str(RATE), "-f", "f32le", "pipe:1"]
    child = Ffmpeg(
        [*strict_input(path), *raw, "-map", "0:V:0", *USED_TOO], STALL_SECONDS, stdout=subprocess.PIPE
    )
    found: list[float] = []
    begin, first = 0, round(start * RATE)
    try:
        for end in chain(range(RATE, first, RATE), (first + round(k * RATE / ticks) for k in count())):
            samples = np.empty(end - begin, np.float32)
            with child.watched():
                got = child.process.stdout.readinto(samples.data.cast("B"))
            if end > first and 2 * got >= samples.nbytes:
                found.append(float(np.sqrt(np.mean(np.square(samples[: got // 4])))))
            if got < samples.nbytes:
                break
            begin = end
        if child.wait():
            if "matches no streams" in child.messages():
                return None
            raise InputError(f"{path}: its sound is damaged ({child.reason()}); make it again")
    finally:
        child.close()
    return 20 * np.log10(np.maximum(found, 10 ** (QUIETEST / 20))) if found else None


def has_sound(path: Path) -> bool:
    """Whether a video has a sound track that can be decoded."""
    child = Ffmpeg([*strict_input(path), "-map", "0:a:0", "-frames:a", "1", "-f", "null", "-"], STALL_SECONDS)
    try:
        return not child.wait()
    finally:
        child.close()


def add_sound(silent: Path, source: Path, spans: Sequence[tuple[float, float]], out: Path) -> None:
    """silent with the sound of those spans (from, to in seconds of the file) of another video, in a row.

    The source must have sound. out appears whole or not at all. OutputError.
    """
    parts = [
        f"[1:a:0]{IN_TIME},atrim={start:.6f}:{stop:.6f},asetpts=PTS-STARTPTS,"
        f"apad=whole_dur={stop - start:.6f},atrim=0:{stop - start:.6f}[a{n}]"
        for n, (start, stop) in enumerate(spans)
    ]
    joined = "".join(f"[a{n}]" for n in range(len(spans))) + f"concat=n={len(spans)}:v=0:a=1[sound]"
    inputs = [*strict_input(silent), *strict_input(source)]
    _join([*inputs, "-filter_complex", ";".join([*parts, joined])], out, ["-map", "1:V:0", *USED_TOO])


def add_samples(silent: Path, samples: np.ndarray, rate: int, out: Path) -> None:
    """silent with samples (N,) int16 of one channel as its sound. OutputError."""
    with tempfile.NamedTemporaryFile(dir=out.parent, suffix=".pcm") as raw:
        raw.write(samples.tobytes())
        raw.flush()
        pcm = ["-f", "s16le", "-ar", str(rate), "-ac", "1", "-i", f"file:{raw.name}"]
        _join([*strict_input(silent), *pcm, "-filter_complex", "[1:a:0]anull[sound]"], out)


def _join(inputs: list[str], out: Path, also: Sequence[str] = ()) -> None:
    """The pictures of the first input with the filters' [sound]; also: a second output."""
    coded = ["-c:v", "copy", "-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart", "-map_metadata", "-1"]
    with atomic_write(out) as draft:
        mapped = ["-map", "0:v:0", "-map", "[sound]", *coded, f"file:{draft}"]
        child = Ffmpeg([*inputs, *mapped, *also], 10 * STALL_SECONDS)
        try:
            if child.wait():
                raise OutputError(f"{out}: cannot be written ({child.reason()}). Check free space.")
        finally:
            child.close()
