"""Hash a video's frames and hand them to its writer while the next ones are made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from engines.device_arrays import contiguous
from generators.generator_error import GeneratorError
from pipeline.stopwatch import Seconds
from pipeline.video.writer import VideoWriter


def write_frames(
    chunks: Iterable[np.ndarray], writer: VideoWriter, seconds: Seconds, overlap: bool = True
) -> str:
    """Write a video's chunks (n, H, W, 3) uint8; return the SHA-256 of all its frames. OutputError.

    GeneratorError: pixels of another size or dtype. A chunk is hashed and written in a thread of its own, and
    the next one is asked for meanwhile; no more than one waits. The stage "write" gets the time that it is
    waited for. overlap=False: one after the other.
    """
    content, pending = hashlib.sha256(), None

    def put(pixels: np.ndarray) -> None:
        for frame in pixels:
            try:
                writer.write(frame)
            except ValueError as error:  # of another kind than it takes
                raise GeneratorError(f"decode gives pixels of a wrong kind: {error}") from error
            content.update(contiguous(frame))  # of a network's (n, 3, H, W), or BGR, it is a view

    def wait(future: Future | None) -> None:
        with seconds("write"):
            if future:
                future.result()

    with writer:
        with ThreadPoolExecutor(1, "writing") as thread:
            for pixels in chunks:
                wait(pending)
                pending = thread.submit(put, pixels)
                if not overlap:
                    wait(pending)
            wait(pending)
        finishing = time.perf_counter()
    seconds.add("write", time.perf_counter() - finishing)
    return content.hexdigest()
