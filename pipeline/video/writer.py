"""Write a video file by a background thread; the file gets its name only when it is complete and verified."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import FolderError, OutputError, ProgramKilled, UsageError
from engines.files import sync
from pipeline.video.colours import TAGGED, Colours
from pipeline.video.ffmpeg import EXACT, Ffmpeg, evenly_spaced, strict_input, tick
from pipeline.video.times import RATES, timestamps

STALL_SECONDS = 120.0  # in which the encoder takes no frame, or does not end after the last one
ENCODER_THREADS = 8  # fixed, whatever the machine: x264's bytes depend on the number of threads
QUEUED_FRAMES = 8
UNFINISHED = re.compile(r"\..*-[0-9a-f]{8}\.tmp-\d+\.\w{3}")  # names of VideoWriter's temporary files
REPEATABLE = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]  # no versions, no dates


class VideoWriter:
    """A writer of H.264 files (.mp4, .mov or .mkv); a context manager.

    A thread feeds ffmpeg, so encoding overlaps with computing; when the encoder is QUEUED_FRAMES behind,
    `write` waits. At the end the file is decoded to check its frames, synced and renamed. If the with block
    raises, or anything fails, the temporary file (hidden, in the same folder) is removed, and an older file
    of that name stays unchanged.

    Normal output is yuv420p, converted to BT.709 and tagged so, or has the colours asked for; width and
    height must be even, else UsageError. crf: 0 to 51, default 12: chroma subsampling then costs more than
    the quantizer. preset: x264's, default medium; veryfast takes 0.4 of the time and costs 0.2 dB.
    lossless=True keeps every RGB value, at any size: libx264rgb with preset ultrafast is 4 times as fast as
    FFV1, gives 0.6 of its size (720 x 1280, 2 cores), and works in MP4; few players show it. fps is rounded
    to the nearest fraction with a denominator up to 1001. Equal frames give equal bytes. OutputError: folder,
    disk or encoder failed, at `write` or at the end. ValueError: a bad argument or frame, or no frame.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: Fraction | float,
        *,
        crf: int | None = None,
        preset: str | None = None,
        colours: Colours = TAGGED,
        lossless: bool = False,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Check the arguments; nothing is written yet."""
        self.path = path = Path(path)
        self.width, self.height, self.fps = width, height, Fraction(fps).limit_denominator(1001)
        if path.suffix not in (".mp4", ".mov", ".mkv"):
            raise ValueError(f"{path}: cannot write '{path.suffix}' files; use .mp4, .mov or .mkv")
        if width < 1 or height < 1 or not RATES[0] <= fps <= RATES[1]:
            raise ValueError(f"{path}: {width} x {height} at {fps} frames/s is not a video")
        if not lossless and (width % 2 or height % 2):
            raise UsageError(f"{path}: {width} x {height} is odd; yuv420p needs even: crop, or --lossless")
        if lossless and crf is not None:
            raise ValueError(f"{path}: crf={crf} does not go with lossless=True; give one of them")
        colours.check()
        if lossless:
            self._codec = ["-c:v", "libx264rgb", "-qp", "0", "-preset", preset or "ultrafast"]
        else:
            quality = ["-crf", str(12 if crf is None else crf), "-preset", preset or "medium"]
            self._codec = [*colour_arguments(colours), "-c:v", "libx264", *quality]
        name = f".{path.stem[:40]}-{secrets.token_hex(4)}.tmp-{os.getpid()}{path.suffix}"
        self._temporary = path.with_name(name)
        self._stall_seconds = stall_seconds
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUED_FRAMES)
        self._broken = threading.Event()
        self._child: Ffmpeg | None = None
        self._count = 0

    def __enter__(self) -> VideoWriter:
        """Create the temporary file and start the encoder. OutputError."""
        check_place(self.path)
        try:
            self._temporary.open("xb").close()
        except OSError as error:
            why = error.strerror
            raise FolderError(f"{self.path}: cannot be written ({why}). Choose a writable folder.") from error
        size = ["-s", f"{self.width}x{self.height}", "-r", str(self.fps)]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", *size, "-i", "pipe:0"]
        faststart = [] if self.path.suffix == ".mkv" else ["-movflags", "+faststart"]
        coded = [*self._codec, "-threads", str(ENCODER_THREADS), *REPEATABLE, *faststart]
        command = [*raw, *coded, "-y", f"file:{self._temporary}"]
        try:
            self._child = Ffmpeg(command, self._stall_seconds, stdin=subprocess.PIPE)
        except (OSError, RuntimeError, ImportError):
            self._temporary.unlink(missing_ok=True)
            raise
        self._feeder = threading.Thread(target=self._feed, args=(self._child,), daemon=True)
        self._feeder.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Finish, verify and rename the file, or remove it if the block raised. OutputError."""
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def write(self, frame: np.ndarray) -> None:
        """Queue one (height, width, 3) uint8 RGB frame; the array may be reused at once. OutputError."""
        if self._child is None:
            raise ValueError(f"{self.path}: is not open; use VideoWriter in a with statement")
        shape = (self.height, self.width, 3)
        if not isinstance(frame, np.ndarray) or frame.shape != shape or frame.dtype != np.uint8:
            got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"{self.path}: frame {self._count} is {got}; expected numpy uint8 {shape}")
        self._put(frame.tobytes())  # in the order of its pixels, however it lies in memory
        self._count += 1

    def _put(self, data: bytes | None) -> None:
        """Queue data, or None for the end; check every 0.1 s whether the encoder has failed meanwhile."""
        while not self._broken.is_set():
            with contextlib.suppress(queue.Full):
                return self._queue.put(data, timeout=0.1)
        raise self._failure()

    def _feed(self, child: Ffmpeg) -> None:
        """Write queued frames to the encoder until None; runs in the thread."""
        try:
            while (data := self._queue.get()) is not None:
                with child.watched():
                    child.process.stdin.write(data)
            with child.watched():
                child.process.stdin.close()
        except OSError:  # the encoder has ended, and its own message says why
            self._broken.set()

    def _failure(self) -> OutputError:
        """Return the error that says why the encoder failed."""
        self._child.wait()
        what = f"writing failed after {self._count} frames ({self._child.reason()})"
        kind = ProgramKilled if self._child.killed else OutputError
        return kind(f"{self.path}: {what}. Check free space and memory, then run it again.")

    def _finish(self) -> None:
        """Wait for the encoder, verify the file, sync it and rename it. OutputError, ValueError."""
        if not self._count:
            raise ValueError(f"{self.path}: no frame was written, and a video needs one")
        self._put(None)
        self._feeder.join()
        if self._broken.is_set() or self._child.wait():
            raise self._failure()
        self._verify()
        try:
            sync(self._temporary)
            os.replace(self._temporary, self.path)
            sync(self.path.parent)
        except OSError as error:
            why = error.strerror
            raise OutputError(f"{self.path}: cannot be written ({why}). Check disk and folder.") from error

    def _verify(self) -> None:
        """Decode the temporary file; OutputError if its frames' number, size or times are not those sent."""
        decode = ["-map", "0:V:0", "-fps_mode", "passthrough", "-f", "framecrc", "pipe:1"]
        child = Ffmpeg([*strict_input(self._temporary), *decode], self._stall_seconds, stdout=subprocess.PIPE)
        try:
            listing, failed = child.listing(), child.wait()
            why = child.reason() if failed else "number, size or rate differ"
        finally:
            child.close()
        times = timestamps(listing)
        sized = f"#dimensions 0: {self.width}x{self.height}\n" in listing
        whole = not failed and sized and len(times) == self._count
        if not whole or not evenly_spaced(times, tick(listing, 0), self.fps):
            raise (ProgramKilled if child.killed else OutputError)(
                f"{self.path}: {len(times)} of {self._count} frames decode from the encoded file ({why}). "
                "Check free space, then run it again."
            )

    def _discard(self) -> None:
        """End the encoder and its thread, and remove the temporary file unless it has been renamed."""
        child, self._child = self._child, None
        child.process.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(None)
        self._feeder.join()
        child.close()
        self._temporary.unlink(missing_ok=True)


def colour_arguments(colours: Colours) -> list[str]:
    """Return ffmpeg's arguments to convert RGB frames to these colours, and to tag the file so."""
    levels = "tv" if colours.range == "unknown" else colours.range
    names = ("colorspace", "color_primaries", "color_trc", "color_range")
    tags = dict(zip(names, (*colours.tags, colours.range), strict=True))
    # The tags are set on the frames too: ffmpeg 9 otherwise drops the options of primaries and transfer.
    frames = ":".join(f"{name.replace('color_range', 'range')}={tag}" for name, tag in tags.items())
    scale = f"scale=out_color_matrix={colours.matrix}:out_range={levels}:{EXACT}"
    options = [word for name, tag in tags.items() if tag != "unknown" for word in (f"-{name}", tag)]
    return ["-vf", f"{scale},setparams={frames},format={colours.pixel_format}", *options]


def check_place(path: Path) -> None:
    """Raise FolderError if there is a folder at a video's path."""
    if path.is_dir():
        raise FolderError(f"{path}: cannot be written, there is a folder of that name. Rename it.")


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder that no process writes to."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
