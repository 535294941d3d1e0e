"""Run one ffmpeg process so that it can neither hang nor fail unseen, and read the frame times it lists."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

# A list, because ffmpeg would also play a text file (as a terminal) and follow playlists to other files.
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,nut,ivf,yuv4mpegpipe"
NO_TIME = str(-(2**63))
# Between RGB and YUV; without them ffmpeg's fast ways round down, by 0.8 to 1.6 levels on the way to RGB.
EXACT = "flags=accurate_rnd+full_chroma_int+bitexact"


def ffmpeg_exe() -> str:
    """Path of the ffmpeg program of imageio-ffmpeg; a test puts a stand-in here."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


class Ffmpeg:
    """One ffmpeg process, killed when it stalls; its messages go to a file: a full pipe would hang it."""

    def __init__(
        self,
        arguments: list[str],
        stall_seconds: float,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        """Start ffmpeg; OSError when the program cannot be started."""
        command = [ffmpeg_exe(), "-hide_banner", "-nostdin", "-v", "error", *arguments]
        self._stall_seconds = stall_seconds
        self._stalled = False
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=self._messages)
        except OSError:
            self._messages.close()
            raise

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Kill the process when the block outlasts the stall time; that ends a read or write on its pipes."""
        timer = threading.Timer(self._stall_seconds, self._stop_stalled)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop_stalled(self) -> None:
        self._stalled = True
        self.process.kill()

    def wait(self) -> int:
        """Return code of the process; negative for a signal."""
        with self.watched():
            return self.process.wait()

    def listing(self, most: float = math.inf) -> str:
        """All that the process writes to its stdout, which must be a pipe and the output text.

        Once there are so many lines or more, no more are read.
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

    def said(self, most: int = 4096) -> str:
        """What the ended process wrote to its stderr, so many bytes of it."""
        self._messages.seek(0)
        return self._messages.read(most).decode("utf-8", "replace")

    def messages(self) -> str:
        """First messages of the ended process on one line, without the addresses that ffmpeg puts first."""
        text = self.said()
        lines = [re.sub(r"^(\[[^]]*\] ?)+", "", line).strip() for line in text.splitlines()]
        return "; ".join(dict.fromkeys(line for line in lines[:3] if line))

    @property
    def killed(self) -> bool:
        """Whether somebody else ended the process by SIGKILL, as a system does that lacks memory."""
        return self.process.returncode == -signal.SIGKILL and not self._stalled

    def reason(self) -> str:
        """Why the ended process failed, for an error text."""
        if self._stalled:
            return f"ffmpeg made no progress for {self._stall_seconds:g} s and was stopped"
        code = self.process.returncode
        ended = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        return f"ffmpeg ended {ended}: {self.messages() or 'no message'}"

    def close(self) -> None:
        """Kill the process if it still runs, and give its pipes and its message file back."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._messages):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def strict_input(path: Path) -> list[str]:
    """Arguments that open a file and stop at its first damage.

    "file:" because a name may look like an option, a protocol or a pattern.
    """
    return ["-xerror", "-err_detect", "explode", "-format_whitelist", CONTAINERS, "-i", f"file:{path}"]


def rgb_output(width: int, height: int, tag_blind: bool = False) -> list[str]:
    """Arguments that write frames as raw uint8 RGB of that size, whatever a stream's own is and becomes.

    tag_blind: taken as BT.601, whatever the tags say.
    """
    matrix = ":in_color_matrix=bt601" if tag_blind else ""
    return ["-vf", f"scale={width}:{height}:{EXACT}{matrix}", "-pix_fmt", "rgb24", "-f", "rawvideo"]


def tick(listing: str, stream: int) -> Fraction:
    """Seconds per tick of one stream in a framecrc listing; for a decoded stream one over its frame rate."""
    return Fraction(re.search(rf"^#tb {stream}: (\d+/\d+)", listing, re.MULTILINE)[1])


def timestamps(listing: str, stream: int) -> list[int]:
    """Presentation times of one stream in a framecrc listing, in ticks; unknown times are left out."""
    found = re.findall(rf"^{stream}, *-?\d+, *(NOPTS|-?\d+),", listing, re.MULTILINE)
    return [int(time) for time in found if time not in ("NOPTS", NO_TIME)]


def evenly_spaced(times: list[int], unit: Fraction, fps: Fraction) -> bool:
    """Whether ascending times in ticks of unit seconds lie at fps, up to rounding (1 ms in Matroska)."""
    return all(abs((time - times[0]) * unit - i / fps) < unit for i, time in enumerate(times))
