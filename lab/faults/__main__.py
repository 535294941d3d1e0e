"""Send mutated files through whole runs of infer.py, and fuzz all that reads files, for docs/faults.md.

python -m lab.faults runs --videos 1000 --pictures 2000 --workers 1 2 --work out/faults
python -m lab.faults fuzz --minutes 60 --work out/faults

Inputs that end a run, or raise what is no foreseen error, stay in WORK; the status is 1 then.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from engines.cli import above_zero, ending, folder, new_parser, run, say
from engines.errors import Exit
from lab.faults.fuzz import TARGETS, fuzz
from lab.faults.whole_runs import make_folder, whole_run


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.faults")
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("runs", help="mutated videos and pictures through whole runs")
    runs.add_argument("--videos", type=int, default=1000, help="mutated ones (1000)")
    runs.add_argument("--pictures", type=int, default=2000, help="mutated ones (2000)")
    runs.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="a run with each (1 2)")
    runs.set_defaults(run_command=whole_runs)
    fuzzing = commands.add_parser("fuzz", help="what parses files, on mutated files")
    fuzzing.add_argument("--minutes", type=above_zero, default=60.0)
    fuzzing.add_argument("--targets", nargs="+", choices=[*TARGETS], default=[*TARGETS])
    fuzzing.set_defaults(run_command=fuzz_all)
    for command in (runs, fuzzing):
        command.add_argument("--work", type=folder, required=True, help="folder for the files; not there yet")
        command.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    return ending("lab.faults", lambda: args.run_command(args))


def whole_runs(args: argparse.Namespace) -> Exit:
    """Print what became of a run with each number of workers."""
    make_folder(args.work / "data", args.videos, args.pictures, args.seed)
    clean = True
    for workers in args.workers:
        counts = whole_run(args.work / "data", args.work / f"out{workers}", workers)
        print(json.dumps(asdict(counts)), flush=True)
        clean &= counts.clean
    return Exit.OK if clean else Exit.BUG


def fuzz_all(args: argparse.Namespace) -> Exit:
    """Print, for each target, how many inputs it took and how many it refused."""
    found = fuzz(args.targets, args.minutes * 60, args.work, args.seed, say)
    for name, tally in found.items():
        print(json.dumps({"target": name, **asdict(tally)}), flush=True)
    return Exit.BUG if any(tally.bugs or tally.hangs for tally in found.values()) else Exit.OK


if __name__ == "__main__":
    run(main)
