"""Run one ffmpeg process that can neither hang nor fail unnoticed, and read the frame times it lists."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from engines.errors import EngineError

LEAST_VERSION = (5, 1)  # the first with -fps_mode
VERSION_SECONDS = 20.0
# An allow-list, because ffmpeg also plays text files (as a terminal) and follows playlists to other files.
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,webp_anim,nut,ivf,yuv4mpegpipe,mxf,dv"
# For conversions between RGB and YUV: ffmpeg's fast ones round down, by 0.8 to 1.6 levels towards RGB.
EXACT = "flags=accurate_rnd+full_chroma_int+bitexact"


def ffmpeg_exe() -> str:
    """Return the path of the ffmpeg program: IMAGEIO_FFMPEG_EXE, or imageio-ffmpeg's own.

    EngineError: there is none, or it cannot be used. Tests replace this function.
    """
    import imageio_ffmpeg

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise EngineError(f"{error} Or run: pip install --force-reinstall imageio-ffmpeg") from error
    if not Path(program).is_relative_to(Path(imageio_ffmpeg.__file__).parent):
        _check_version(program)
    return program


@functools.cache
def _check_version(program: str) -> None:
    """Raise EngineError if a program is not an ffmpeg that runs here and is new enough."""
    command = [program, "-version"]
    try:
        shown = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_SECONDS
        ).stdout.decode("utf-8", "replace")
        why = "is not an ffmpeg that runs here"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        shown, why = "", f"cannot be started ({error})"
    # Other builds name a commit and no number; they are taken as new.
    number = re.match(r"ffmpeg version n?(\d+)\.(\d+)", shown)
    if number and tuple(map(int, number.groups())) < LEAST_VERSION:
        why = f"is too old ({number[0]})"
    elif shown.startswith("ffmpeg version"):
        return
    least = ".".join(map(str, LEAST_VERSION))
    how = f"Expected version {least} or later; unset IMAGEIO_FFMPEG_EXE, or give it the path of one."
    raise EngineError(f"{program}: {why}. {how}")


class Ffmpeg:
    """One ffmpeg process, killed when it stalls; stderr goes to a file: a full pipe would hang it."""

    def __init__(
        self,
        arguments: list[str],
        stall_seconds: float,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        until: float = math.inf,
    ) -> None:
        """Start ffmpeg. EngineError: there is none that can be used. OSError: it cannot be started.

        until: when it is killed though it makes progress, by time.monotonic.
        """
        command = [ffmpeg_exe(), "-hide_banner", "-nostdin", "-v", "error", *arguments]
        self._stall_seconds, self._until = stall_seconds, until
        self._stalled = False
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=self._messages)
        except OSError:
            self._messages.close()
            raise

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Kill the process if the with block outlasts the stall time; this ends reads and writes of pipes."""
        seconds = min(self._stall_seconds, self._until - time.monotonic())
        timer = threading.Timer(max(seconds, 0), self._stop_stalled)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop_stalled(self) -> None:
        """Kill the process, and remember that it stalled."""
        self._stalled = True
        self.process.kill()

    def wait(self) -> int:
        """Wait for the process to end; return its return code, negative for a signal."""
        with self.watched():
            return self.process.wait()

    def listing(self, most: float = math.inf) -> str:
        """Return the text that the process writes to its stdout, which must be a pipe.

        Reading stops when there are `most` lines or more.
        """
        parts, lines = [], 0
        while lines < most:
            with self.watched():
                part = self.process.stdout.read1(65536)
            if not part:
                break
            parts.append(part)
            lines += part.count(b"\n")
        return b"".join(parts).decode("ascii", "replace")

    def stderr(self, most: int = 4096) -> str:
        """Return the first `most` bytes that the ended process wrote to its stderr."""
        self._messages.seek(0)
        return self._messages.read(most).decode("utf-8", "replace")

    def messages(self) -> str:
        """Return the ended process's first messages on one line, without their prefixes of addresses."""
        text = self.stderr()
        lines = [re.sub(r"^(\[[^]]*\] ?)+", "", line).strip() for line in text.splitlines()]
        return "; ".join(dict.fromkeys(line for line in lines[:3] if line))

    @property
    def killed(self) -> bool:
        """Whether another process sent SIGKILL, as a system does that runs out of memory."""
        return self.process.returncode == -signal.SIGKILL and not self._stalled

    def reason(self) -> str:
        """Return why the ended process failed, for an error text."""
        if self._stalled:
            return f"ffmpeg made no progress for {self._stall_seconds:g} s and was stopped"
        code = self.process.returncode
        ended = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        return f"ffmpeg ended {ended}: {self.messages() or 'no message'}"

    def close(self) -> None:
        """Kill the process if it still runs, and close its pipes and its message file."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._messages):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def strict_input(path: Path) -> list[str]:
    """Return ffmpeg's arguments to open a file, and to stop at its first damage.

    "file:" is there because a name may look like an option, a protocol or a pattern.
    """
    return ["-xerror", "-err_detect", "explode", "-format_whitelist", CONTAINERS, "-i", f"file:{path}"]


def rgb_output(width: int, height: int, tag_blind: bool = False) -> list[str]:
    """Return ffmpeg's arguments to output raw uint8 RGB of that size, whatever the stream's own sizes.

    tag_blind: decode as BT.601, whatever the tags say.
    """
    matrix = ":in_color_matrix=bt601" if tag_blind else ""
    return ["-vf", f"scale={width}:{height}:{EXACT}{matrix}", "-pix_fmt", "rgb24", "-f", "rawvideo"]


def tick(listing: str, stream: int) -> Fraction:
    """Return the seconds per tick of a stream in a framecrc listing; of a decoded stream 1 / frame rate."""
    return Fraction(re.search(rf"^#tb {stream}: (\d+/\d+)", listing, re.MULTILINE)[1])


def evenly_spaced(times: list[int], unit: Fraction, fps: Fraction) -> bool:
    """Return whether ascending times, in ticks of unit seconds, are 1 / fps apart up to rounding.

    Matroska rounds to 1 ms.
    """
    return all(abs((time - times[0]) * unit - i / fps) < unit for i, time in enumerate(times))
