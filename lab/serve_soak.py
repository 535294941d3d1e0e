"""Keep a service busy for an hour, lightly, and see whether its memory, files and threads stay what they are.

  python -m lab.serve_soak --seconds 3600 --out runs/serve-soak

Jobs of mixed sizes come one after another: most are watched and left to be forgotten, some are removed,
cancelled, left by their viewer, compared with the base model, or have bad inputs. It ends with 7 if something
has grown.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from engines.cli import check_numbers, common_arguments, ending, new_parser, run, show
from engines.errors import Exit
from lab.serve_inputs import BAD, clips, tiny_generator
from lab.serve_load import Load, service_command

KINDS = {"watched": 6, "removed": 2, "cancelled": 1, "left": 2, "bad": 2, "compared": 1}  # how often, of 14
KEEP_HOURS = 0.05  # so that most of what is made is forgotten within the hour
WARM = 0.2  # of the time, in which caches fill
GROWN = 1.1  # times the median of the fifth after warming up: that of the last fifth may be as much
MORE = {"files": 2, "threads": 2}


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.serve_soak")
    common_arguments(parser, out={"default": Path("runs/serve-soak"), "help": "folder for all of it, new"})
    parser.add_argument("--seconds", type=float, default=3600.0, help="that it takes (3600)")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two jobs (4)")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two looks (20)")
    args = parser.parse_args()
    check_numbers(parser, args)
    return ending("lab.serve_soak", lambda: soak(args))


def soak(args: argparse.Namespace) -> Exit:
    """Run it, print the report as JSON; SOME_FAILED if something has grown, or a job went wrong."""
    args.out.mkdir(parents=True)
    generator, (videos, image) = tiny_generator(args.out), clips(args.out / "data")
    home, draw, done, looks = args.out / "home", random.Random(0), Counter(), []
    quick = args.out / "quick.toml"
    quick.write_text('preset = "ultrafast"\n')
    more = "--keep-hours", str(KEEP_HOURS), "--recipe", str(quick)
    load = Load(service_command(home, generator, 1, *more), args.out / "serve.log")
    load.start()
    try:
        while load.ask("GET", "/readyz").status_code != 200:
            time.sleep(0.1)
        began = time.monotonic()
        while (spent := time.monotonic() - began) < args.seconds:
            kind = draw.choices(list(KINDS), KINDS.values())[0]
            video = draw.choice(list(BAD.values())) if kind == "bad" else draw.choice(videos)
            done[f"{kind}: {one_job(load, kind, video, image)}"] += 1
            if spent >= len(looks) * args.every:
                looks.append({"seconds": round(spent), **look(load, home)})
                with (args.out / "looks.jsonl").open("a") as file:
                    file.write(json.dumps(looks[-1]) + "\n")
            time.sleep(args.pause)
    finally:
        load.process.terminate()
        load.process.wait()
    report = {**judged(looks), "jobs": dict(done)}
    show(report)
    return Exit.SOME_FAILED if report["grown"] else Exit.OK


def one_job(load: Load, kind: str, video: bytes, image: bytes) -> str:
    """Post a job and see it to the end that its kind says; return how it ended."""
    files, recipe = (
        {"video": ("v", video), "image": ("i", image)},
        "quick" if kind == "compared" else "baseline",
    )
    posted = load.ask("POST", "/v1/videos", files=files, data={"recipe": recipe})
    if posted.status_code != 202:
        return str(posted.status_code)
    path = f"/v1/videos/{posted.json()['id']}"
    if kind == "cancelled":
        return load.ask("DELETE", path).json().get("status", "deleted")
    with httpx.stream("GET", f"{load.url}{path}/stream", timeout=60) as growing:
        for _ in growing.iter_raw():
            if kind == "left":
                return "left"
    load.ask("GET", f"{path}/events")
    ended = load.ask("GET", path).json()["status"]
    load.ask("GET", f"{path}/content")
    if kind == "compared":
        ended = load.ask("POST", f"{path}/comparison").json()["status"]
        while ended in ("queued", "in_progress"):
            time.sleep(0.5)
            ended = load.ask("GET", f"{path}/comparison").json()["status"]
    if kind == "removed":
        load.ask("DELETE", path)
    return ended


def look(load: Load, home: Path) -> dict[str, float]:
    """Return memory in MB, open files and threads of service and worker, and what lies on the disk."""
    found = {}
    for name, pid in (("service", load.process.pid), ("worker", load.workers()[0])):
        place = Path("/proc") / str(pid)
        status = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", (place / "status").read_text(), re.MULTILINE))
        found[f"{name} memory"] = int(status["VmRSS"]) / 1024
        found[f"{name} threads"] = int(status["Threads"])
        found[f"{name} files"] = len(list((place / "fd").iterdir()))
    found["folders"] = len(list((home / "videos").iterdir()))
    found["database"] = sum(path.stat().st_size for path in home.glob("jobs.sqlite*")) / 2**20
    return found


def judged(looks: list[dict[str, float]]) -> dict:
    """Return medians of the fifth after warming up and of the last fifth, and what has grown between them."""
    after = [each for each in looks if each["seconds"] >= WARM * looks[-1]["seconds"]]
    part, grown, table = max(1, len(after) // 4), [], {}
    for name in looks[0].keys() - {"seconds"}:
        first, last = (
            float(np.median([each[name] for each in some])) for some in (after[:part], after[-part:])
        )
        table[name] = [round(first, 1), round(last, 1)]
        kind = name.split()[-1]
        if last > (first + MORE[kind] if kind in MORE else first * GROWN + 0.5):
            grown.append(f"{name}: {first:.1f}, then {last:.1f}")
    return {"grown": grown, "seconds": looks[-1]["seconds"], "looks": len(looks), "medians": table}


if __name__ == "__main__":
    run(main)
