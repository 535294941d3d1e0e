"""Measure on a machine with an NVIDIA GPU and no network, in a quarter of an hour, whether this project's
networks are right there, how fast they are and what limits them.
Each figure goes to <gpu>.json once it is known, tables to <gpu>.md and stdout behind each entry.

python -m lab.gpu first              400 s: machine, tests, frames, three networks as they are
python -m lab.gpu second             340 s: two of them compiled
python -m lab.gpu wan-81             an entry measured again, after a change
python -m lab.gpu --dry-run          all of it rehearsed on a processor, with tiny networks
python -m lab.gpu expect             operations, bytes and floors, counted without a GPU
python -m lab.gpu across             bytes between host and device for a video, counted; takes minutes

A bare machine lacks diffusers and importlib-metadata: bring their wheels, see docs/gpu-notes.md. What is done
is not measured again; an entry that ends the process or hangs is named, and the others are measured.
A lent machine that gives back only the folder $OUT has that in the environment: results go there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engines.cli import ending, folder, new_parser, run, say
from engines.errors import EngineError, Exit, UsageError, unknown
from lab.gpu.expected import BYTES, CROSSING, OPERATIONS
from lab.gpu.run import (
    COMMANDS,
    ENTRIES,
    IMPORT_SECONDS,
    IMPORTS,
    ROOT,
    Place,
    Record,
    file_name,
    gpu_state,
    measure_entries,
)
from lab.gpu.table import brief, rows


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.gpu", lambda: run_gpu(args, partial(print, flush=True)))


def run_gpu(args: argparse.Namespace, show: Callable[[str], None]) -> Exit:
    """Measure what is asked for; shows tables, and where the results are. UsageError, EngineError."""
    what = args.what or list(COMMANDS)
    if what in (["expect"], ["across"]):
        show((expected if what == ["expect"] else across)(args.dry_run))
        return Exit.OK
    for name in what:
        if name not in (*COMMANDS, *ENTRIES):
            raise UsageError(unknown("entry", name, (*COMMANDS, "expect", "across", *ENTRIES)))
    gpu = gpu_state()
    if gpu is None and not args.dry_run:
        raise EngineError("no GPU: nvidia-smi shows none; --dry-run rehearses on the processor")
    given = args.out or os.environ.get("OUT")
    out = Path(given or ROOT / ("out/gpu" if args.dry_run else "bench/results")).resolve()
    record = Record(out / f"{'rehearsal' if args.dry_run else file_name(gpu['name'])}.json")
    entries = {each.name: each for name in what for each in COMMANDS.get(name, ([ENTRIES.get(name)],))[0]}
    if args.here_until is not None:
        place = Place("cpu" if args.dry_run else "cuda", args.dry_run, out)
        for name in measure_entries(list(entries.values()), place, record, args.here_until, say):
            show(brief(record.entries, [name]))
        return Exit.OK
    _watch(what, record, args)
    record = Record(record.path)
    record.write_table()
    show(brief(record.entries, [IMPORTS, *entries]))
    show(str(record.path))
    return Exit.OK


def _watch(what: list[str], record: Record, args: argparse.Namespace) -> None:
    """Run processes that measure, one behind what ended another. EngineError: one was at nothing."""
    for name in what:
        if name in ENTRIES and record.status(name):
            record.put(name, "status", None)
            record.put(name, "earlier", record.entries.pop(name))
    if IMPORTS in record.entries:  # of another command
        record.put(IMPORTS, "tries", {})
    say(f"results: {record.path}")
    limit = sum(
        COMMANDS[name][1] if name in COMMANDS else IMPORT_SECONDS + ENTRIES[name].limit for name in what
    )
    until = float("inf") if args.dry_run else time.monotonic() + (args.seconds or limit)
    while _measured(what, record.path.parent, args.dry_run, until):
        found = Record(record.path)
        ended = found.note_ended()
        found.write_table()
        if not ended:
            raise EngineError("the process that measures ended before it was at an entry; see what it said")
        say(f"the process ended at {', '.join(ended)}; another goes on behind it")


def _measured(what: list[str], out: Path, rehearsal: bool, until: float) -> int:
    """Run a process that measures, and return its status."""
    command = [sys.executable, "-m", "lab.gpu", *what, "--out", str(out), "--here-until", str(until)]
    return subprocess.run([*command, *["--dry-run"] * rehearsal], cwd=ROOT).returncode


def expected(tiny: bool) -> str:
    """Return a table of every network's work and roofline, counted without a GPU."""
    import torch

    from lab.gpu.counted import count, crossing
    from lab.gpu.networks import NETWORKS
    from lab.gpu.random_init import inputs_of
    from lab.gpu.variants import as_taken

    head = (
        "network|TFLOP|of them attention|ms at 989 TFLOP/s|least GB|ms at 4.8 TB/s|GB if eager|"
        "ms at 4.8 TB/s|MB across|ms at 25 GB/s"
    )
    lines = []
    for name, make in NETWORKS.items():
        model = make("tiny" if tiny else "full")
        inputs = as_taken(model, inputs_of(model.spec, model.sizes, "meta"), torch.bfloat16)
        work = count(model.build("meta", torch.bfloat16), inputs)
        across = crossing(model.spec, model.sizes)
        cells = (
            work.operations / 1e12, work.attention / 1e12, 1e3 * work.operations / OPERATIONS,
            work.least_bytes / 1e9, 1e3 * work.least_bytes / BYTES,
            work.eager_bytes / 1e9, 1e3 * work.eager_bytes / BYTES, across / 1e6, 1e3 * across / CROSSING,
        )  # fmt: skip
        lines.append("|".join([name, *(f"{cell:.4g}" for cell in cells)]))
    return rows(head, lines)


def across(tiny: bool) -> str:
    """Return a table of the bytes that a video sends between host and device, in both ways of running."""
    from lab.gpu.crossing import bytes_across
    from lab.gpu.networks import VIDEOS

    lines = []
    for name, (make, frames) in VIDEOS.items():
        generator = make("tiny" if tiny else "full")
        found = (bytes_across(generator, frames, resident) for resident in (False, True))
        cells = (f"{sent / 1e9:.4g}" for way in found for sent in way)
        lines.append("|".join([f"{name}, {frames} frames", *cells]))
    return rows("video|GB up, through the host|GB down|GB up, on the device|GB down", lines)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.gpu")
    parser.add_argument("what", nargs="*", help=f"{', '.join(COMMANDS)}, expect, across or entries")
    parser.add_argument(
        "--out", type=folder, help="folder of results ($OUT, else bench/results; rehearsed: out/gpu)"
    )
    parser.add_argument("--seconds", type=float, help="in which it ends (400, 340, or as entries say)")
    parser.add_argument("--dry-run", action="store_true", help="rehearse on the processor")
    parser.add_argument("--here-until", type=float, help=argparse.SUPPRESS)  # set by the process that watches
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
