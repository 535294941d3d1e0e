"""Write a video that can be watched while it grows: MP4 in fragments of one frame."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import OutputError, ProgramKilled
from engines.files import atomic_write
from pipeline.video.colours import TAGGED
from pipeline.video.ffmpeg import Ffmpeg, strict_input
from pipeline.video.writer import REPEATABLE, STALL_SECONDS, colour_arguments

# A fragment is written when the next one's key frame comes, so a fragment of one frame is one frame late.
# Without a trailer, what an encoder leaves whose writer was killed is the beginning of the whole file.
MOVFLAGS = "+frag_every_frame+empty_moov+default_base_moof+skip_trailer"
CODEC = ["-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency", "-crf", "18", "-threads", "1"]
GROUP = 12  # frames from key frame to key frame
MOST_HELD = 64 << 20  # bytes of frames that wait for a viewer; beyond them the file is begun without one


class LiveVideo:
    """A growing MP4 file for viewers; a context manager. What was written stays when the block raises.

    A thread feeds the encoder, so that who makes the frames need not wait for it: after the with block `wait`
    says whether the file is whole. size: width and height, even. wanted: whether somebody watches; the file
    is begun, with all frames so far, once that is so or these are MOST_HELD bytes. Equal frames give equal
    bytes.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: Fraction, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Start the encoder, if it is wanted."""
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size), "-r", str(fps)]
        self._command = [*raw, "-i", "pipe:0", *colour_arguments(TAGGED), *growing_output(path)]
        self._path, self._wanted, self._sent = path, wanted, Future()
        self._sent.set_result(None)
        self._child: Ffmpeg | None = None
        self._held: list[bytes] = []
        self._feeder = ThreadPoolExecutor(1)
        self.feed()

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End the encoder's input, or the encoder if the block raised."""
        if error is not None:
            self.close()
        elif self.feed():
            self._sent = self._feeder.submit(self._end, self._sent)

    def write(self, chunk: np.ndarray) -> None:
        """Take frames (n, H, W, 3) uint8 once those before are with the encoder. OutputError: it failed."""
        self._sent.result()
        self._held.append(chunk.tobytes())
        self.feed()

    def wait(self) -> None:
        """Wait until the file is whole, if it was begun. OutputError: the encoder or the disk failed."""
        self._sent.result()

    def close(self) -> None:
        """End the encoder; nothing more is written."""
        if self._child:
            self._child.process.kill()
        self._feeder.shutdown()
        if self._child:
            self._child.close()

    def feed(self) -> bool:
        """Hand what is held to the encoder, which is started if it is wanted by now; return whether it is."""
        if not self._child and (self._wanted() or sum(map(len, self._held)) > MOST_HELD):
            self._child = Ffmpeg(self._command, STALL_SECONDS, stdin=subprocess.PIPE)
        if self._child and self._held:
            self._sent, self._held = self._feeder.submit(self._send, self._sent, self._held), []
        return self._child is not None

    def _send(self, sent: Future, held: list[bytes]) -> None:
        sent.result()
        try:
            for data in held:
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


def growing_output(path: Path) -> list[str]:
    """Return ffmpeg's arguments to write a growing file."""
    growing = ["-g", str(GROUP), "-movflags", MOVFLAGS, "-flush_packets", "1"]
    return [*CODEC, *growing, *REPEATABLE, "-y", f"file:{path}"]


def write_late(source: Path, path: Path) -> None:
    """Write the growing file of a finished video at once; it appears whole. OutputError."""
    with atomic_write(path) as draft:
        child = Ffmpeg([*strict_input(source), *growing_output(draft)], STALL_SECONDS)
        try:
            if child.wait():
                raise OutputError(f"{path}: writing failed ({child.reason()}). Check free space and memory.")
        finally:
            child.close()
