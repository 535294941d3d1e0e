"""Load a service with jobs of many clients, bad inputs among them, while it and its workers are killed.

  python -m lab.serve_load --jobs 200 --clients 16 --kills 10 --out runs/serve-load

A client repeats a request that got no answer, with the same Idempotency-Key. At the end every job that was
accepted must be made, once, whole, and alike for alike inputs; the report says how long jobs waited, and how
the frames/s compare with infer.py, which makes the same videos before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from engines.cli import ROOT, check_numbers, common_arguments, ending, new_parser, run, say, show
from engines.errors import EngineError, Exit
from pipeline.video.writer import UNFINISHED, VideoWriter

FRAMES = (1, 7, 24, 48, 120)  # of the clips
BAD = {"text": b"not a video", "playlist": b"#EXTM3U\nfile:///etc/passwd\n", "empty": b""}
PART_BAD = 0.15
ENDED = ("completed", "failed", "cancelled")


@dataclass
class Load:
    """A service under load: its command, its process, and what clients saw."""

    command: list[str]
    log: Path
    accepted: dict[str, str] = field(default_factory=dict)  # key by id
    answers: Counter = field(default_factory=Counter)
    process: subprocess.Popen | None = None
    url: str = ""

    def start(self) -> None:
        """Start the service; return when it answers. EngineError: it ended."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)
        while "http://" not in (text := self.log.read_text()):
            if self.process.poll() is not None:
                raise EngineError(f"the service ended: {text}")
            time.sleep(0.05)
        self.url = text[text.index("http://") :].split("/  ")[0]

    def kill(self, worker: bool) -> None:
        """Kill a worker, or the service, which is started again."""
        if worker:
            for pid in self.workers()[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        self.process.kill()
        self.process.wait()
        self.start()

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
        return [pid for pid, parent in pairs if parent == self.process.pid]

    def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        """Ask until there is an answer."""
        while True:
            with suppress(httpx.HTTPError):
                return httpx.request(method, f"{self.url}{path}", timeout=60, **options)
            time.sleep(0.2)

    def post(self, key: str, video: bytes, image: bytes, bad: bool) -> None:
        """Send one job until it is accepted, or refused for what it is."""
        files = {"video": ("v", video), "image": ("i", image)}
        while True:
            answer = self.ask("POST", "/v1/videos", files=files, headers={"Idempotency-Key": key})
            self.answers[f"{'bad' if bad else 'good'} {answer.status_code}"] += 1
            if answer.status_code == 429:
                time.sleep(min(float(answer.headers["Retry-After"]), 5.0))
                continue
            if answer.status_code in (200, 202):
                self.accepted[answer.json()["id"]] = key
            return


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.serve_load")
    common_arguments(parser, out={"default": Path("runs/serve-load"), "help": "folder for all of it, new"})
    parser.add_argument("--jobs", type=int, default=200, help="good and bad ones together (200)")
    parser.add_argument("--clients", type=int, default=16, help="that post at the same time (16)")
    parser.add_argument("--kills", type=int, default=10, help="of a worker and of the service in turn (10)")
    parser.add_argument("--workers", type=int, default=1, help="of the service, on the CPU (1)")
    args = parser.parse_args()
    kills, args.kills = args.kills, 1
    check_numbers(parser, args)
    args.kills = kills
    return ending("lab.serve_load", lambda: load_service(args))


def load_service(args: argparse.Namespace) -> Exit:
    """Run it all, print the report as JSON; SOME_FAILED if a job was lost, made twice, or is not whole."""
    args.out.mkdir(parents=True)
    generator, videos, image = tiny_generator(args.out), *clips(args.out / "data")
    rate = batch_rate(args.out, generator)
    home = args.out / "home"
    command = service_command(home, generator, args.workers)
    load, draw = Load(command, args.out / "serve.log"), random.Random(0)
    load.start()
    try:
        while load.ask("GET", "/readyz").status_code != 200:
            time.sleep(0.1)
        started = time.time()
        with ThreadPoolExecutor(args.clients) as clients:
            for number in range(args.jobs):
                bad = draw.random() < PART_BAD
                video = draw.choice(list(BAD.values())) if bad else draw.choice(videos)
                clients.submit(load.post, f"job-{number}", video, image, bad)
            killer = threading.Thread(target=kill_now_and_then, args=(load, args.kills))
            killer.start()
        killer.join()
        while any(job["status"] not in ENDED for job in jobs_of(load)):
            time.sleep(0.5)
        report = judged(load, home, time.time() - started, rate)
    finally:
        load.process.terminate()
        load.process.wait()
    show(report)
    return Exit.SOME_FAILED if report["wrong"] else Exit.OK


def service_command(home: Path, generator: str, workers: int = 1, *more: str) -> list[str]:
    """Return the command of a service with the base model's recipe on processors, at any free port."""
    recipe = str(ROOT / "optimize" / "recipes" / "baseline.toml")
    command = [sys.executable, "-m", "serve", "--home", str(home), "--port", "0", "--generator", generator]
    command += ["--recipe", recipe, "--device", ",".join(["cpu"] * workers), *more]
    return [*command, "--max-queued", "1000", "--max-per-key", "1000"]


def kill_now_and_then(load: Load, kills: int) -> None:
    """Kill a worker and the service in turn, each time after another job has ended."""
    for number in range(kills):
        ended = sum(job["status"] in ENDED for job in jobs_of(load))
        while any(job["status"] not in ENDED for job in jobs_of(load)):
            if sum(job["status"] in ENDED for job in jobs_of(load)) > ended + 1:
                break
            time.sleep(0.3)
        load.kill(worker=number % 2 == 0)
        say(f"kill {number + 1} of {kills}")


def jobs_of(load: Load) -> list[dict]:
    """Return all jobs, page by page."""
    found, after = [], ""
    while True:
        page = load.ask("GET", f"/v1/videos?limit=100&order=asc{after}").json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = f"&after={found[-1]['id']}"


def judged(load: Load, home: Path, seconds: float, batch: float) -> dict:
    """Return the report: what went wrong, how long jobs waited, how fast the service was."""
    jobs, wrong = jobs_of(load), []
    if {job["id"] for job in jobs} != set(load.accepted) or len(set(load.accepted.values())) != len(jobs):
        wrong.append(f"{len(jobs)} jobs for {len(set(load.accepted.values()))} accepted keys")
    alike: dict[tuple, set] = {}
    for job in jobs:
        content = load.ask("GET", f"/v1/videos/{job['id']}/content").content
        if (
            job["status"] != "completed"
            or hashlib.sha256(content).hexdigest() != job["result"]["output_sha256"]
        ):
            wrong.append(f"{job['id']}: {job['status']} {job['error']}, or not its file")
            continue
        alike.setdefault((job["result"]["video_sha256"], job["seed"]), set()).add(
            job["result"]["frames_sha256"]
        )
    wrong += [f"{len(made)} different videos of one input" for made in alike.values() if len(made) > 1]
    wrong += [str(path) for path in home.rglob("*") if UNFINISHED.fullmatch(path.name)]
    if len(list((home / "videos").iterdir())) != len(jobs):
        wrong.append("folders without a job")
    with closing(sqlite3.connect(home / "jobs.sqlite")) as database:
        tries = dict(database.execute("SELECT attempt, count(*) FROM jobs GROUP BY attempt"))
    waited = [job["started_at"] - job["created_at"] for job in jobs if job["started_at"]]
    first = [job["first_frame_seconds"] for job in jobs if job["first_frame_seconds"]]
    rate = sum(job["frames"] for job in jobs) / seconds
    return {
        "wrong": wrong, "jobs": len(jobs), "answers": dict(load.answers), "attempts": tries,
        "seconds": round(seconds, 1),
        "waited_p50": percentile(waited, 50), "waited_p99": percentile(waited, 99),
        "first_frame_p50": percentile(first, 50), "first_frame_p99": percentile(first, 99),
        "frames_per_second": round(rate, 2), "batch_frames_per_second": round(batch, 2),
        "of_batch": round(rate / batch, 3),
    }  # fmt: skip


def percentile(values: list[float], part: float) -> float:
    """Return a percentile, rounded."""
    return round(float(np.percentile(values, part)), 3)


def batch_rate(out: Path, generator: str) -> float:
    """Return the frames/s of infer.py on the clips, by the videos' own seconds."""
    command = [sys.executable, "infer.py", "--generator", generator, "--data", str(out / "data"), "--json"]
    command += ["--out", str(out / "batch"), "--stream"]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return sum(line["frames"] for line in lines) / sum(line["total_seconds"] for line in lines)


def clips(data: Path) -> tuple[list[bytes], bytes]:
    """Make a data folder with a clip of each length; return the videos and the picture."""
    from PIL import Image

    (data / "images").mkdir(parents=True)
    Image.new("RGB", (64, 96), (180, 140, 120)).save(data / "images" / "person.png")
    paths = [data / "videos" / f"clip-{count}.mp4" for count in FRAMES]
    paths[0].parent.mkdir()
    for path, count in zip(paths, FRAMES, strict=True):
        frames = np.zeros((count, 96, 64, 3), np.uint8)
        for number, frame in enumerate(frames):
            frame[20:80, 10 + number % 40 : 16 + number % 40] = (255, 60, 0)
        with VideoWriter(path, 64, 96, 24) as writer:
            for frame in frames:
                writer.write(frame)
    return [path.read_bytes() for path in paths], (data / "images" / "person.png").read_bytes()


TINY = """
from pathlib import Path

from generators.presenter.generator import Presenter
from generators.samplers import FlowMatchEuler


class Tiny(Presenter):
    name, size, scheduler = "tiny", (32, 48), FlowMatchEuler(2, 3.0)

    def __init__(self):
        super().__init__(Path(__file__).parent)
"""


def tiny_generator(folder: Path) -> str:
    """Make a presenter with small random weights, for 32x48 pixels and two steps; return its name."""
    import torch

    from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE, save_weights
    from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize

    torch.manual_seed(0)
    save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
    save_weights(Denoise(DenoiserSize(1, 24, 1, 32)), folder / DENOISER_FILE)
    (folder / "tiny.py").write_text(TINY)
    return f"{folder.resolve() / 'tiny.py'}:Tiny"


if __name__ == "__main__":
    run(main)
