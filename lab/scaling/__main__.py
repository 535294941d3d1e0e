"""How throughput grows with a cluster.

python -m lab.scaling measure    null workers, on a Ray cluster of this machine's own
python -m lab.scaling draw       the simulation: a picture and a table

measure takes seconds by stage from a timed run in a report of the bench. Null workers take as long, then a
tenth of that for networks, where handing out begins to show.
draw simulates up to 16 machines of 8 workers with these, and with what handing out was found to cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path

from engines.cli import SAMPLE, ending, folder, new_parser, run, say
from engines.errors import Exit, InputError, unknown
from lab.scaling.files import file_seconds
from lab.scaling.null_workers import measure
from lab.scaling.plot import COUNTS, TIMES_FASTER, draw, grown, shortest
from lab.scaling.simulation import Costs, Machines
from pipeline.parallel.ray_cluster import LOCAL, connect
from pipeline.parallel.stage_scheduler import Stage

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "bench" / "results" / "scaling.json"
REPORT = ROOT / "bench" / "results" / "levels-amx.json"
PICTURE = ROOT / "docs" / "images" / "scaling.png"
MACHINE = Machines(1, networks=8, files=8, bandwidth=1.25e9)  # 10 Gbit/s
SMALL = (128, 192), 48  # size and frames of the videos that the report timed
LARGE = (720, 1280), 81  # of a video as models of billions of parameters make them
NETWORKS = ("condition", "denoise", "decode")
PER_WORKER = {1: 6, 10: 30}  # videos of a run, by how many times as fast networks are
PER_IDLE_WORKER = 100
VIDEO = SAMPLE / "videos" / "ada.mp4"


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.scaling", lambda: args.run_command(args))


def run_measure(args: argparse.Namespace) -> Exit:
    """Take costs from a report; measure rates of null workers, first of some that take no time."""
    costs = costs_of(json.loads(args.report.read_text(encoding="utf-8")), args.run)
    read, write = file_seconds(args.video, *LARGE)
    passing = bytes_of(*LARGE)
    large = replace(costs, read=read, write=write, read_bytes=passing, made_bytes=passing)
    cases = [(replace(costs, read=0.0, make=0.0, write=0.0), MACHINE, PER_IDLE_WORKER)]
    for factor, each in PER_WORKER.items():
        faster = replace(costs, make=costs.make / factor)
        cases += [(faster, replace(MACHINE, count=count), each) for count in args.machines]
    ray, runs = connect(LOCAL), []
    where = {"cores": os.cpu_count(), "python": platform.python_version(), "ray": ray.__version__}
    figures = {"measured_on": where, "costs": asdict(costs), "large": asdict(large), "runs": runs}
    args.figures.parent.mkdir(parents=True, exist_ok=True)
    for case, machines, each in cases:
        videos = each * machines.count * machines.networks
        found = measure(ray, case, machines, videos, args.video, lambda text: None)
        runs.append({"machines": machines.count, "make": case.make, "videos": videos, **asdict(found)})
        say(f"{machines.count} machines, networks {case.make:.2f} s: {found.rate:.2f} videos/s, "
            f"driver {1e3 * found.process:.1f} ms a video")  # fmt: skip
        args.figures.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    ray.shutdown()
    return Exit.OK


def costs_of(report: dict, name: str) -> Costs:
    """Return costs from the timed run of that name, for SMALL videos, without dispatch. InputError: no such
    run.
    """
    runs = {run["name"]: run["timing"]["stages"] for run in report["runs"] if run["timing"]}
    if name not in runs:
        raise InputError(unknown("timed run", name, runs))
    stages = runs[name]
    make, passing = sum(stages[stage] for stage in NETWORKS), bytes_of(*SMALL)
    return Costs(stages["read"], make, stages["write"], 0.0, passing, passing)


def bytes_of(size: tuple[int, int], frames: int) -> int:
    """Return the bytes of a video's frames."""
    return 3 * size[0] * size[1] * frames


def run_draw(args: argparse.Namespace) -> Exit:
    """Draw the picture, and print a table for docs/cluster.md."""
    figures = json.loads(args.figures.read_text(encoding="utf-8"))
    busy, *runs = figures["runs"]
    dispatch = busy["process"] / len(Stage)
    costs, large = (replace(Costs(**figures[name]), dispatch=dispatch) for name in ("costs", "large"))
    draw(costs, large, MACHINE, runs, args.out)
    print("| networks, s a video | machines | workers | videos a second | busiest | of proportion |")
    print("|---|---|---|---|---|---|")
    for factor in TIMES_FASTER:
        faster = replace(costs, make=costs.make / factor)
        for count, found in grown(faster, MACHINE):
            workers = count * MACHINE.networks
            cells = f"{faster.make:.3g}", count, workers, f"{found.rate:.3g}", shortest(found)
            part = 100 * found.rate * faster.make / workers
            print("|", " | ".join(map(str, cells)), f"| {part:.0f} % |")
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.scaling")
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure", help="run null workers on Ray")
    measuring.add_argument("--report", type=folder, default=REPORT, help=f"({REPORT.relative_to(ROOT)})")
    measuring.add_argument("--run", default="openvino-bf16", help="its timed run (openvino-bf16)")
    measuring.add_argument("--machines", type=int, nargs="+", default=COUNTS, help="how many (1 2 4 8 16)")
    measuring.add_argument("--video", type=Path, default=VIDEO, help="any, for its header (the first sample)")
    measuring.set_defaults(run_command=run_measure)
    drawing = commands.add_parser("draw", help="simulate, and draw with what was measured")
    drawing.add_argument("--out", type=folder, default=PICTURE, help=f"picture ({PICTURE.relative_to(ROOT)})")
    drawing.set_defaults(run_command=run_draw)
    for command in (measuring, drawing):
        command.add_argument("--figures", type=Path, default=FIGURES, help=f"({FIGURES.relative_to(ROOT)})")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
