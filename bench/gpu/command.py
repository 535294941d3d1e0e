"""The command line of python -m bench gpu."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.gpu.expected import expected
from bench.gpu.run import COMMANDS, ENTRIES, ROOT, Place, Record, file_name, gpu_state, measure_entries
from engines.spec import EngineError
from engines.unknown import unknown
from pipeline.exit_code import Exit
from pipeline.script import say

ABOUT = """A quarter of an hour on a machine with an NVIDIA GPU that reaches no network: what is right, how
fast it is, what it is short of. Each figure goes to bench/results/<gpu>.json and .md once it is known.

python -m bench.gpu first              400 s: machine, tests, frames, three networks as they are
python -m bench.gpu second             300 s: two of them compiled
python -m bench.gpu wan-81             an entry measured again, after a change
python -m bench gpu --dry-run          all of it rehearsed on a processor, with tiny networks
python -m bench.gpu expect             operations, bytes and floors, counted without a GPU

A bare machine lacks diffusers and importlib-metadata: bring their wheels, see docs/gpu-notes.md. What is done
is not measured again; an entry that ends the process or hangs is named, and the others are measured.
"""


def add_gpu(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("what", nargs="*", help=f"{', '.join(COMMANDS)}, expect or entries (first second)")
    parser.add_argument("--out", type=Path, help="folder of the results (bench/results; rehearsed: out/gpu)")
    parser.add_argument("--seconds", type=float, help="in which it ends (400, 300, or as entries say)")
    parser.add_argument("--dry-run", action="store_true", help="rehearse on the processor")
    parser.add_argument("--here-until", type=float, help=argparse.SUPPRESS)  # set by the process that watches


def run_gpu(args: argparse.Namespace, show: Callable[[str], None]) -> Exit:
    """Measure what is asked for; shows where the results are. ValueError, EngineError."""
    what = args.what or list(COMMANDS)
    if what == ["expect"]:
        show(expected(args.dry_run))
        return Exit.OK
    for name in what:
        if name not in (*COMMANDS, *ENTRIES):
            raise ValueError(unknown("entry", name, (*COMMANDS, "expect", *ENTRIES)))
    gpu = gpu_state()
    if gpu is None and not args.dry_run:
        raise EngineError("no GPU: nvidia-smi shows none; --dry-run rehearses on the processor")
    out = (args.out or ROOT / ("out/gpu" if args.dry_run else "bench/results")).resolve()
    record = Record(out / f"{'rehearsal' if args.dry_run else file_name(gpu['name'])}.json")
    entries = {each.name: each for name in what for each in COMMANDS.get(name, ([ENTRIES.get(name)],))[0]}
    if args.here_until is not None:
        place = Place("cpu" if args.dry_run else "cuda", args.dry_run, out)
        measure_entries(list(entries.values()), place, record, args.here_until, say)
        return Exit.OK
    for name in what:
        if name in ENTRIES and record.status(name):
            record.put(name, "status", None)
            record.put(name, "earlier", record.entries.pop(name))
    limit = sum(COMMANDS[name][1] if name in COMMANDS else ENTRIES[name].seconds + 30 for name in what)
    until = float("inf") if args.dry_run else time.time() + (args.seconds or limit)
    while _measured(what, out, args.dry_run, until):
        at = [name for name in ENTRIES if Record(record.path).status(name) == "begun"]
        Record(record.path).write_table()
        if not at:
            raise EngineError("the process that measures ended before it was at an entry; see what it said")
        say(f"the process ended at {at[0]}; another goes on behind it")
    Record(record.path).write_table()
    show(str(record.path))
    return Exit.OK


def _measured(what: list[str], out: Path, rehearsal: bool, until: float) -> int:
    """The status of a process that measures."""
    command = [sys.executable, "-m", "bench.gpu", *what, "--out", str(out), "--here-until", str(until)]
    return subprocess.run([*command, *["--dry-run"] * rehearsal], cwd=ROOT).returncode
