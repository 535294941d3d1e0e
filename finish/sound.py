"""How loud a video is over time, and how sound gets into another one."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, repeat
from pathlib import Path

import numpy as np

from engines.errors import InputError, OutputError
from engines.files import atomic_write
from pipeline.video.ffmpeg import Ffmpeg, strict_input
from pipeline.video.info import STALL_SECONDS

RATE, CUT_RATE = 8000, 48000  # samples a second that loudness is measured on, and of a cut-down
APART, LONGEST = 10.0, 300.0  # seconds between spans that are read at once, and of all of them
QUIETEST = -60.0  # decibels below full scale; what is less is silence
USED_TOO = ["-map", "0:V:0", "-c", "copy", "-f", "null", "-"]  # it begins the file: see pipeline.video.info


def loudness(path: Path, ticks: float, span: tuple[float, float] = (0.0, 1e9)) -> np.ndarray | None:
    """Level of each of `ticks` parts of a second in decibels, -60 to 0; None if the video has no sound.

    span: from, to in seconds of the file. Read in pieces. InputError: the sound is damaged.
    """
    sizes = (round((k + 1) * RATE / ticks) - round(k * RATE / ticks) for k in count())
    pieces = (samples / 32768 for samples in heard(path, span, RATE, 1, sizes))
    found = [float(np.sqrt(np.mean(np.square(samples)))) for samples in pieces]
    return 20 * np.log10(np.maximum(found, 10 ** (QUIETEST / 20))) if found else None


def heard(
    path: Path, span: tuple[float, float], rate: int, channels: int, sizes: Iterable[int]
) -> Iterator[np.ndarray]:
    """Give sound of a span (from, to in seconds of the file), in pieces (n, channels) int16 of those sizes.

    It is silent where sound has not begun or has a gap; at its end pieces end, the last one shorter. There is
    none for a file without sound. InputError: the sound is damaged.
    """
    cut = f"atrim={span[0]:.6f}:{span[1]:.6f},asetpts=PTS-{span[0]:.6f}/TB"
    # Converted before gaps are filled, which takes memory for their length.
    form = f"aformat=sample_fmts=s16:sample_rates={rate}:channel_layouts={channels}c"
    filled = ["-af", f"{cut},{form},aresample=async=1:first_pts=0", "-f", "s16le", "pipe:1"]
    arguments = [*strict_input(path), "-map", "0:a:0", *filled, *USED_TOO]
    child = Ffmpeg(arguments, STALL_SECONDS, stdout=subprocess.PIPE)
    try:
        for size in sizes:
            samples = np.empty((size, channels), np.int16)
            with child.watched():
                got = child.process.stdout.readinto(samples.data.cast("B"))
            if got:
                yield samples[: got // (2 * channels)]
            if got < samples.nbytes:
                break
        if child.wait() and "matches no streams" not in child.messages():
            raise InputError(f"{path}: its sound is damaged ({child.reason()}); make it again")
    finally:
        child.close()


def channels_of(path: Path) -> int:
    """Number of channels that a video's sound is cut with, 1 or 2; 0 if none can be decoded."""
    first = ["-map", "0:a:0", "-frames:a", "1", "-f", "framecrc", "pipe:1"]
    child = Ffmpeg([*strict_input(path), *first], STALL_SECONDS, stdout=subprocess.PIPE)
    try:
        listing = child.listing()
        return 0 if child.wait() else 1 if ": mono" in listing else 2
    finally:
        child.close()


def add_sound(
    silent: Path, source: Path, channels: int, spans: Sequence[tuple[float, float]], out: Path
) -> None:
    """silent with the sound of those spans (ascending, from and to in seconds of the file) of another video.

    channels: of the sound, 1 or 2. out appears whole or not at all. InputError: it is damaged. OutputError.
    """
    with tempfile.NamedTemporaryFile(dir=out.parent, suffix=".pcm") as raw:
        end = 0
        for group in near(spans):
            first, at = group[0][0], 0
            parts = [tuple(round((each - first) * CUT_RATE) for each in span) for span in group]
            raw.seek(end)
            for block in heard(source, (first, group[-1][1]), CUT_RATE, channels, repeat(CUT_RATE)):
                for start, stop in parts:
                    raw.write(block[max(0, start - at) : max(0, stop - at)].tobytes())
                at += len(block)
            end += 2 * channels * sum(stop - start for start, stop in parts)
            raw.truncate(end)  # silence after the sound's end
        raw.flush()
        _join(silent, raw.name, CUT_RATE, channels, out)


def near(spans: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Group spans that are read at once: ffmpeg has a gap in the sound in memory, 440 kB a second of it."""
    groups: list[list[tuple[float, float]]] = []
    for start, stop in spans:
        while start < stop:
            end = min(stop, start + LONGEST)
            if groups and start - groups[-1][-1][1] < APART and end - groups[-1][0][0] <= LONGEST:
                groups[-1].append((start, end))
            else:
                groups.append([(start, end)])
            start = end
    return groups


def add_samples(silent: Path, samples: np.ndarray, rate: int, out: Path) -> None:
    """silent with samples (N,) int16 of one channel as its sound. OutputError."""
    with tempfile.NamedTemporaryFile(dir=out.parent, suffix=".pcm") as raw:
        raw.write(samples.tobytes())
        raw.flush()
        _join(silent, raw.name, rate, 1, out)


def _join(silent: Path, samples: str, rate: int, channels: int, out: Path) -> None:
    """silent with a file of int16 samples as its sound."""
    pcm = ["-f", "s16le", "-ar", str(rate), "-ac", str(channels), "-i", f"file:{samples}"]
    coded = ["-c:v", "copy", "-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart", "-map_metadata", "-1"]
    with atomic_write(out) as draft:
        mapped = ["-map", "0:v:0", "-map", "1:a:0", *coded, f"file:{draft}"]
        child = Ffmpeg([*strict_input(silent), *pcm, *mapped], 10 * STALL_SECONDS)
        try:
            if child.wait():
                raise OutputError(f"{out}: cannot be written ({child.reason()}). Check free space.")
        finally:
            child.close()
