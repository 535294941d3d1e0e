"""Write a video that can be watched while it grows: MP4 in fragments of one frame."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import OutputError, ProgramKilled
from pipeline.video.colours import TAGGED
from pipeline.video.ffmpeg import Ffmpeg
from pipeline.video.writer import REPEATABLE, STALL_SECONDS, colour_arguments

# A fragment is written when the next one's key frame comes, so a fragment of one frame is one frame late.
# Without a trailer, what an encoder leaves whose writer was killed is the beginning of the whole file.
MOVFLAGS = "+frag_every_frame+empty_moov+default_base_moof+skip_trailer"
CODEC = ["-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency", "-crf", "18", "-threads", "1"]
GROUP = 12  # frames from key frame to key frame


def live_chunks(
    chunks: Iterable[np.ndarray], path: Path, size: tuple[int, int], fps: Fraction
) -> Iterator[np.ndarray]:
    """Give chunks of frames (n, H, W, 3) uint8 on after writing them to a growing MP4 file for viewers.

    size: width and height, even. Equal frames give equal bytes. When the chunks end or fail, what was written
    stays. OutputError: the encoder or the disk failed.
    """
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size), "-r", str(fps), "-i", "pipe:0"]
    shown = colour_arguments(TAGGED)
    output = ["-movflags", MOVFLAGS, "-flush_packets", "1", *REPEATABLE, "-y", f"file:{path}"]
    child = Ffmpeg([*raw, *shown, *CODEC, "-g", str(GROUP), *output], STALL_SECONDS, stdin=subprocess.PIPE)
    try:
        for chunk in chunks:
            _send(child, path, chunk.tobytes())
            yield chunk
        _send(child, path, None)
        if child.wait():
            raise _failure(child, path)
    finally:
        child.close()


def _send(child: Ffmpeg, path: Path, data: bytes | None) -> None:
    """Write bytes to the encoder, or end its input. OutputError."""
    try:
        with child.watched():
            if data is None:
                child.process.stdin.close()
            else:
                child.process.stdin.write(data)
                child.process.stdin.flush()
    except OSError as error:
        child.wait()
        raise _failure(child, path) from error


def _failure(child: Ffmpeg, path: Path) -> OutputError:
    kind = ProgramKilled if child.killed else OutputError
    return kind(f"{path}: writing failed ({child.reason()}). Check free space and memory, then run it again.")
