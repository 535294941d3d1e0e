"""Write a video that can be watched while it grows: MP4 in fragments of one frame."""

from __future__ import annotations

import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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


class LiveVideo:
    """A growing MP4 file for viewers; a context manager. What was written stays when the block raises.

    A thread feeds the encoder, so that who makes the frames need not wait for it: after the with block `wait`
    says whether the file is whole. size: width and height, even. Equal frames give equal bytes.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction) -> None:
        """Start the encoder."""
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size), "-r", str(fps)]
        shown = ["-i", "pipe:0", *colour_arguments(TAGGED), *CODEC, "-g", str(GROUP)]
        output = ["-movflags", MOVFLAGS, "-flush_packets", "1", *REPEATABLE, "-y", f"file:{path}"]
        self._path, self._sent = path, Future()
        self._sent.set_result(None)
        self._child = Ffmpeg([*raw, *shown, *output], STALL_SECONDS, stdin=subprocess.PIPE)
        self._feeder = ThreadPoolExecutor(1)

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End the encoder's input, or the encoder if the block raised."""
        if error is None:
            self._sent = self._feeder.submit(self._end, self._sent)
        else:
            self.close()

    def write(self, chunk: np.ndarray) -> None:
        """Take frames (n, H, W, 3) uint8 once those before are with the encoder. OutputError: it failed."""
        self._sent.result()
        self._sent = self._feeder.submit(self._send, chunk.tobytes())

    def wait(self) -> None:
        """Wait until the file is whole. OutputError: the encoder or the disk failed."""
        self._sent.result()

    def close(self) -> None:
        """End the encoder; nothing more is written."""
        self._child.process.kill()
        self._feeder.shutdown()
        self._child.close()

    def _send(self, data: bytes) -> None:
        try:
            with self._child.watched():
                self._child.process.stdin.write(data)
                self._child.process.stdin.flush()
        except OSError as error:
            raise self._failure() from error

    def _end(self, sent: Future) -> None:
        sent.result()
        with suppress(OSError), self._child.watched():
            self._child.process.stdin.close()
        if self._child.wait():
            raise self._failure()

    def _failure(self) -> OutputError:
        self._child.wait()
        kind = ProgramKilled if self._child.killed else OutputError
        why = f"{self._path}: writing failed ({self._child.reason()})"
        return kind(f"{why}. Check free space and memory, then run it again.")
