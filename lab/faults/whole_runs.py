"""Run infer.py on a folder of mutated videos and pictures, and count what became of each."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, features

from engines.errors import Exit
from lab.faults.mutations import MUTATIONS, mutated
from lab.faults.numpy_generator import SCRIPT
from pipeline.video.ffmpeg import ffmpeg_exe
from pipeline.video.image import PICTURE_SUFFIXES

ROOT = Path(__file__).resolve().parents[2]
VIDEOS = (
    "mp4",
    "mkv",
    "avi",
    "mov",
    "webm",
    "ts",
    "mpg",
    "flv",
    "wmv",
    "gif",
    "webp",
    "nut",
    "ogv",
    "3gp",
    "mxf",
)
PICTURES = ("png", "jpg", "webp", "bmp", "gif", "tif", "avif")
GOOD = 20  # pairs that are as they should be
ENDED = 3600.0  # seconds that a run may take


@dataclass(frozen=True)
class Counts:
    """What became of a run: its status and seconds, and of its mutated files how many were made or refused.

    lost: ids without a manifest line, or good pairs that were not made. unexplained: failed lines whose
    reason does not name the file. traceback: whether one was printed. slowest: seconds between two results.
    """

    workers: int
    status: int
    seconds: float
    made: int
    refused: int
    lost: tuple[str, ...]
    unexplained: tuple[str, ...]
    traceback: bool
    slowest: float

    @property
    def clean(self) -> bool:
        """Whether every file had its line and none ended the run."""
        ended = self.status in (Exit.OK, Exit.SOME_FAILED)
        return ended and not (self.lost or self.unexplained or self.traceback)


def make_sources(folder: Path) -> tuple[list[Path], list[Path]]:
    """Make one small video of each container and one picture of each format that this machine can write."""
    folder.mkdir(parents=True, exist_ok=True)
    videos, pictures = [], []
    for suffix in VIDEOS:
        path = folder / f"in.{suffix}"
        kind = {"3gp": ["-c:v", "mpeg4"], "webp": ["-c:v", "libwebp_anim"], "mxf": ["-c:v", "mpeg2video"]}
        source = ["-f", "lavfi", "-i", "testsrc2=s=96x96:r=25:d=0.4"]
        command = [ffmpeg_exe(), "-v", "quiet", "-y", *source, *kind.get(suffix, []), str(path)]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0:
            videos.append(path)
    noise = np.random.default_rng(1).integers(0, 256, (96, 64, 3), np.uint8)
    for suffix in PICTURES:
        if f".{suffix}" in PICTURE_SUFFIXES and (suffix != "avif" or features.check("avif")):
            Image.fromarray(noise).save(folder / f"picture.{suffix}")
            pictures.append(folder / f"picture.{suffix}")
    return videos, pictures


def make_folder(data: Path, videos: int, pictures: int, seed: int) -> None:
    """Make a data folder of mutated videos with good pictures, the reverse, and GOOD good pairs."""
    draws = random.Random(seed)
    good_videos, good_pictures = make_sources(data / "sources")
    rows = ["id,video,image"]
    for kind in ("videos", "images"):
        (data / kind).mkdir()

    def put(folder: str, source: Path, name: str, spoilt: bool) -> str:
        content = source.read_bytes()
        path = data / folder / f"{name}{source.suffix}"
        path.write_bytes(mutated(content, draws.choice(MUTATIONS), draws) if spoilt else content)
        return path.name

    for name, source in _names("good", GOOD, good_videos):
        put("videos", source, name, False)
    for name, source in _names("good", GOOD, good_pictures):
        put("images", source, name, False)
    video, image = f"good0{good_videos[0].suffix}", f"good0{good_pictures[0].suffix}"
    for number in range(GOOD):
        good = good_videos[number % len(good_videos)], good_pictures[number % len(good_pictures)]
        rows.append(f"good{number},good{number}{good[0].suffix},good{number}{good[1].suffix}")
    rows += [
        f"{n},{put('videos', source, n, True)},{image}" for n, source in _names("v", videos, good_videos)
    ]
    rows += [f"{n},{video},{put('images', s, n, True)}" for n, s in _names("p", pictures, good_pictures)]
    (data / "pairs.csv").write_text("\n".join(rows) + "\n")


def whole_run(data: Path, out: Path, workers: int) -> Counts:
    """Run infer.py on the folder; its messages go to out.log."""
    command = [sys.executable, str(ROOT / "infer.py"), "--generator", SCRIPT, "--data", str(data)]
    command += ["--out", str(out), "--workers", str(workers), "--json"]
    began = last = time.monotonic()
    slowest, lines = 0.0, []
    with Path(f"{out}.log").open("w+") as log:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            for line in process.stdout:
                lines.append(json.loads(line))
                slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
                if last - began > ENDED:
                    process.kill()
        log.seek(0)
        traceback = "Traceback" in log.read()
    ids = {row.partition(",")[0] for row in (data / "pairs.csv").read_text().splitlines()[1:]}
    made = {line["id"] for line in lines if line["status"] == "done"}
    failed = {line["id"]: line["error"] for line in lines if line["status"] == "failed"}
    lost = [
        n for n in sorted(ids) if n not in made | failed.keys() or (n.startswith("good") and n not in made)
    ]
    unexplained = [name for name, why in failed.items() if str(data) not in why]
    spoilt = sum(not name.startswith("good") for name in made)
    return Counts(
        workers, process.returncode, round(time.monotonic() - began, 1), spoilt, len(failed), tuple(lost),
        tuple(unexplained), traceback, round(slowest, 1),
    )  # fmt: skip


def _names(kind: str, count: int, sources: list[Path]) -> Iterator[tuple[str, Path]]:
    for number in range(count):
        yield f"{kind}{number}", sources[number % len(sources)]
