"""How fast `finish highlights` is, and how much memory it takes, on a long video made of real footage."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lab.finish.footage import Reel, read_parts
from lab.finish.pictures import HELD_OUT
from pipeline.video.ffmpeg import ffmpeg_exe

PAUSE = 0.25  # seconds between looks at the memory
MADE = 5  # minutes that are made at the most: a longer video is these several times


def long_run(footage: Path, out: Path, minutes: float, say: Callable[[str], None]) -> dict:
    """Times real time and megabytes of the command on a video of that length, which is made once.

    MB: of the process at a quarter, half, three quarters and the end of its time, and the most; of ffmpeg the
    most of its own, without what a process has of its parent's before it becomes another program.
    """
    out.mkdir(parents=True, exist_ok=True)
    video, index = out / f"long-{minutes:g}.mp4", out / "long.jsonl"
    if not video.is_file():
        say(f"long: making {video}")
        _make(footage, min(minutes, MADE), max(1, round(minutes / MADE)), video)
    index.write_text(json.dumps({"video_id": "a", "video": video.name, "targetRatioWH": [9, 16]}) + "\n")
    command = [sys.executable, "-m", "finish", "highlights", "--index", str(index), "--videos", str(out)]
    before, started, sizes = _worked(), time.monotonic(), []
    child = subprocess.Popen([*command, "--out", str(out / "long-found.jsonl")])
    while child.poll() is None:
        sizes.append((_resident(child.pid), max(map(_most, _children(child.pid)), default=0.0)))
        time.sleep(PAUSE)
    took, worked = time.monotonic() - started, _worked() - before
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    found = json.loads((out / "long-found.jsonl").read_text(encoding="utf-8"))
    own, ffmpeg = np.array([each for each in sizes if each[0]]).T  # an ended process has none
    parts = [own[max(1, round(len(own) * part / 4)) - 1] for part in (1, 2, 3, 4)]
    return {
        "minutes": minutes, "frames kept": len(found["predictions"]),
        "times real time": minutes * 60 / took, "seconds of processors": worked,
        "MB along the way": parts, "MB": float(own.max()), "MB, ffmpeg": float(ffmpeg.max()),
    }  # fmt: skip


def _make(footage: Path, minutes: float, times: int, video: Path) -> None:
    """Write a video of so many minutes, that many times one after the other."""
    once = video.with_stem("once") if times > 1 else video
    Reel(HELD_OUT, read_parts(footage), minutes * 60).write(once)
    if times > 1:
        command = [ffmpeg_exe(), "-v", "error", "-y", "-stream_loop", str(times - 1), "-i", str(once)]
        subprocess.run([*command, "-c", "copy", str(video)], check=True)


def _worked() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children(parent: int) -> list[int]:
    """Of all threads; none once it has ended."""
    try:
        lists = [each.read_text() for each in Path(f"/proc/{parent}/task").glob("*/children")]
    except OSError:
        return []
    return [int(pid) for pid in " ".join(lists).split()]


def _resident(pid: int) -> float:
    return _status(pid, "VmRSS")


def _most(pid: int) -> float:
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    """Megabytes (of 2**20 bytes) that Linux says under a name; 0 where the process has ended."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0
