"""The command line of python -m bench gpu."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.gpu.expected import expected
from bench.gpu.run import RESULTS, STAGES, Order, run_stages
from bench.gpu.wheels import LOAD, gather
from engines.unknown import unknown
from pipeline.script import say

ABOUT = """On a machine with an NVIDIA GPU, which need not reach any network: install what was brought along,
run the tests marked gpu, measure, profile the slowest, and write it all down.

python -m bench gpu wheels --out DIR --python 3.12   elsewhere: what such a machine lacks, in loads to carry
python -m bench gpu --wheels DIR --limit 540         there, again until it says that nothing is left
python -m bench gpu --dry-run                        the same on a processor, with tiny networks
python -m bench gpu expect                           operations, bytes and floors, counted without a GPU
"""
WORK = Path("out") / "gpu"


def add_gpu(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("what", nargs="?", choices=["run", "wheels", "expect"], default="run", help="(run)")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"some of {', '.join(STAGES)} (all)")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="end before that many have passed")
    parser.add_argument("--wheels", type=Path, help="a folder of loads, as wheels makes them")
    parser.add_argument("--work", type=Path, default=WORK, help=f"what is made on the way ({WORK})")
    parser.add_argument("--results", type=Path, help="for the JSON and the table (bench/results)")
    parser.add_argument("--dry-run", action="store_true", help="rehearse on the processor")
    parser.add_argument("--out", type=Path, default=Path("out") / "wheels", help="of wheels (out/wheels)")
    parser.add_argument("--python", default="3.12", help="of the machine that wheels are for (3.12)")
    parser.add_argument("--load-mb", type=int, default=LOAD, help=f"MB that a load of wheels has ({LOAD})")


def run_gpu(args: argparse.Namespace) -> str:
    """Do it; what to print. ValueError, EngineError."""
    if args.what == "expect":
        return expected(args.dry_run)
    if args.what == "wheels":
        loads = gather(args.python, args.out, args.load_mb * 1_000_000, say)
        return f"{args.out}: {loads} loads"
    stages = args.stages.split(",")
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(unknown("stage", stage, STAGES))
    results = args.results or (args.work if args.dry_run else RESULTS)
    order = Order(stages, args.work, results, args.wheels, args.limit, args.dry_run)
    return str(run_stages(order, say))
