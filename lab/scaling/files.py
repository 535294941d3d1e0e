"""Time reading and writing a video here, at a size that the sample data does not have."""

from __future__ import annotations

import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from generators.resize import cover
from pipeline.video.reader import VideoReader, VideoWriter


def file_seconds(video: Path, size: tuple[int, int], count: int) -> tuple[float, float]:
    """Return wall seconds of reading and of writing the video's frames, repeated to so many, at (width,
    height).
    """
    with VideoReader(video) as reader:
        frames = [cover(frame[None], *size)[0] for frame in reader]
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder, "large.mp4"), time.perf_counter()
        with VideoWriter(path, *size, 24) as writer:
            for frame in islice(cycle(frames), count):
                writer.write(frame)
        write = time.perf_counter() - start
        with VideoReader(path) as reader:
            for frame in reader:
                cover(frame[None], *size)
    return time.perf_counter() - start - write, write
