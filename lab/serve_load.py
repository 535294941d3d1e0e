"""Load a service with jobs of many clients, bad inputs among them, while it and its workers are killed.

  python -m lab.serve_load --jobs 200 --clients 16 --kills 10 --out runs/serve-load

A client repeats a request that got no answer, with the same Idempotency-Key. At the end every job that was
accepted must be made, once, whole, and alike for alike inputs; the report says how long jobs waited, and how
the seconds of a video compare with infer.py's, which makes the same ones before and after.
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
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from engines.cli import ROOT, check_numbers, common_arguments, ending, new_parser, run, say, show
from engines.errors import EngineError, Exit
from lab.serve_inputs import BAD, clips, given, tiny_generator
from pipeline.video.writer import UNFINISHED

BASE = ROOT / "optimize" / "recipes" / "baseline.toml"
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
    over: bool = False  # nothing is asked any more

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
        """Ask until there is an answer. EngineError: it is over."""
        while not self.over:
            with suppress(httpx.HTTPError):
                return httpx.request(method, f"{self.url}{path}", timeout=60, **options)
            time.sleep(0.2)
        raise EngineError("the load was interrupted")

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
    parser.add_argument("--generator", help="name or path (a presenter of 32 x 48 with random weights)")
    common_arguments(parser, out={"default": Path("runs/serve-load"), "help": "folder for all of it, new"})
    parser.add_argument("--jobs", type=int, default=200, help="good and bad ones together (200)")
    parser.add_argument("--clients", type=int, default=16, help="that post at the same time (16)")
    parser.add_argument("--kills", type=int, default=10, help="of a worker and of the service in turn (10)")
    parser.add_argument("--workers", type=int, default=1, help="of the service, on the CPU (1)")
    parser.add_argument("--data", type=Path, help="folder with clips (drawn ones of 1 to 120 frames)")
    parser.add_argument("--recipe", type=Path, default=BASE, help="TOML file (the base model's)")
    args = parser.parse_args()
    kills, args.kills = args.kills, 1
    check_numbers(parser, args)
    args.kills = kills
    return ending("lab.serve_load", lambda: load_service(args))


def load_service(args: argparse.Namespace) -> Exit:
    """Run it all, print the report as JSON; SOME_FAILED if a job was lost, made twice, or is not whole."""
    args.out.mkdir(parents=True)
    videos, image = given(args.data, args.out / "data") if args.data else clips(args.out / "data")
    generator = args.generator or tiny_generator(args.out)
    batch = partial(batch_seconds, args.out, generator, args.recipe)
    alone, home = batch("before"), args.out / "home"
    command = service_command(home, generator, args.workers, recipe=args.recipe)
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
            time.sleep(2)
        found = jobs_of(load)
        wrong = wrong_of(load, found, home)
    finally:
        load.over = True
        load.process.terminate()
        load.process.wait()
    for frames, seconds in batch("after").items():
        alone[frames] += seconds
    report = {"wrong": wrong, "answers": dict(load.answers), **judged(found, home, started, alone)}
    show(report)
    return Exit.SOME_FAILED if report["wrong"] else Exit.OK


def service_command(
    home: Path, generator: str, workers: int = 1, *more: str, recipe: Path = BASE
) -> list[str]:
    """Return the command of a service of one recipe on processors, at any free port."""
    command = [sys.executable, "-m", "serve", "--home", str(home), "--port", "0", "--generator", generator]
    command += ["--recipe", str(recipe), "--device", ",".join(["cpu"] * workers), *more]
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


def wrong_of(load: Load, jobs: list[dict], home: Path) -> list[str]:
    """Return what went wrong: jobs lost, made twice, not whole, or unlike another of the same inputs."""
    wrong = []
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
    return wrong


def judged(jobs: list[dict], home: Path, started: float, alone: dict[int, list[float]]) -> dict:
    """Return how long jobs waited, and how fast the service was.

    started: when the first job was posted. alone: seconds of videos by infer.py, by their frames.
    """
    with closing(sqlite3.connect(home / "jobs.sqlite")) as database:
        tries = dict(database.execute("SELECT attempt, count(*) FROM jobs GROUP BY attempt"))
    waited = [job["started_at"] - job["created_at"] for job in jobs if job["started_at"]]
    first = [job["first_frame_seconds"] for job in jobs if job["first_frame_seconds"]]
    seconds = max((job["completed_at"] or 0 for job in jobs), default=0) - started
    usual = {frames: sum(taken) / len(taken) for frames, taken in alone.items()}
    by_frames: dict[int, list[float]] = {}
    for job in jobs:
        by_frames.setdefault(job["frames"], []).append(job["completed_at"] - job["started_at"])
    batch = sum(usual[job["frames"]] for job in jobs)
    rate = sum(job["frames"] for job in jobs) / seconds
    return {
        "jobs": len(jobs), "attempts": tries, "seconds": round(seconds, 1),
        "waited_p50": percentile(waited, 50), "waited_p99": percentile(waited, 99),
        "first_frame_p50": percentile(first, 50), "first_frame_p99": percentile(first, 99),
        "frames_per_second": round(rate, 2), "batch_frames_per_second": round(rate * seconds / batch, 2),
        "of_batch": round(batch / seconds, 3),
        "of_batch_by_frames": {
            frames: round(usual[frames] * len(taken) / sum(taken), 3)
            for frames, taken in sorted(by_frames.items())
        },
    }  # fmt: skip


def percentile(values: list[float], part: float) -> float:
    """Return a percentile, rounded."""
    return round(float(np.percentile(values, part)), 3)


def batch_seconds(out: Path, generator: str, recipe: Path, name: str) -> dict[int, list[float]]:
    """Return the seconds that infer.py takes for clips, by their frames: ROUNDS times each."""
    command = [sys.executable, "infer.py", "--generator", generator, "--data", str(out / "data"), "--json"]
    command += ["--out", str(out / f"batch-{name}"), "--stream", "--recipe", str(recipe)]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    seconds: dict[int, list[float]] = {}
    for line in lines[1:]:
        seconds.setdefault(line["frames"], []).append(line["total_seconds"])
    return seconds


if __name__ == "__main__":
    run(main)
