"""Hold streamed videos against those made at once, and measure what a stream takes as clips grow longer.

  python -m lab.streamed equal --recipe optimize/recipes/fast.toml --frames 1 7 16 17 48 200 1000
  python -m lab.streamed equal --recipe optimize/recipes/fast.toml --tiny     with random small networks
  python -m lab.streamed equal --recipe optimize/recipes/baseline.toml --half-size --frames 1000
  python -m lab.streamed measure --recipe optimize/recipes/fast.toml --frames 48 480 4800

Clips are skeletons of a person and motions nobody trained on. Runs are infer.py's: the same command goes on
where it was interrupted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from engines.cli import ROOT, common_arguments, ending, new_parser, run, say, show
from engines.errors import EngineError, Exit
from generators.presenter.generator import Presenter
from lab.presenter.evaluate import HELD_OUT_SEED
from lab.presenter.sample_data import write_clip, write_sample_data
from lab.serve_inputs import tiny_generator
from pipeline.batch.run_folder import finished_lines

WARM = 24  # frames of the clip that is made before one that is measured


class HalfSize(Presenter):
    """The presenter in a quarter of its pixels, with its own networks, steps and windows."""

    name, size = "half-size", (64, 96)


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.streamed")
    commands = parser.add_subparsers(required=True)
    for name, does, frames in (("equal", equal, (1, 7, 16, 17, 48, 200)), ("measure", measure, (48, 480))):
        command = commands.add_parser(name, help=does.__doc__.split(";")[0])
        common_arguments(command, out={"default": Path("runs/streamed"), "help": "folder for clips and runs"})
        command.add_argument("--recipe", type=Path, required=True, help="TOML file")
        size = command.add_mutually_exclusive_group()
        size.add_argument(
            "--tiny", action="store_true", help="random networks of 32 x 48: its steps, windows and guard"
        )
        size.add_argument(
            "--half-size", action="store_true", help="the presenter's networks at 64 x 96, on torch"
        )
        command.add_argument("--frames", type=int, nargs="+", default=frames, help=f"of the clips {frames}")
        command.set_defaults(run_command=does)
    args = parser.parse_args()
    return ending("lab.streamed", lambda: args.run_command(args))


def equal(args: argparse.Namespace) -> Exit:
    """Make each clip at once and streamed; SOME_FAILED if the frames of one are not the same bytes."""
    data = clips(args.out / "clips" / "-".join(map(str, args.frames)), args.frames)
    folder = args.out / args.recipe.stem / data.name
    at_once, streamed = made(data, args, folder / "batch"), made(data, args, folder / "stream", "--stream")
    unlike = False
    for name, line in at_once.items():
        other = streamed[name]
        same = all(line[key] == other[key] for key in ("frames_sha256", "output_sha256", "guard_fired"))
        shown = {key: line[key] for key in ("frames", "frames_sha256", "guard_fired", "backend")}
        seconds = [each["total_seconds"] for each in (line, other)]
        show({"recipe": args.recipe.stem, "equal": same, **shown, "seconds": seconds})
        unlike |= not same
    return Exit.SOME_FAILED if unlike else Exit.OK


def measure(args: argparse.Namespace) -> Exit:
    """Stream each clip in a process of its own, after a short one; show seconds and peak memory by length."""
    lines, used = {}, {}
    for frames in sorted(args.frames):
        before = cpu_seconds()
        data = clips(args.out / "clips" / f"warm-{frames}", (frames,), warm=True)
        out = args.out / args.recipe.stem / f"measured-{frames}"
        line = lines[frames] = made(data, args, out, "--stream")[_name(frames)]
        used[frames] = cpu_seconds() - before
        shown = ("first_frame_seconds", "total_seconds", "peak_memory_mb", "guard_fired", "seconds")
        cost = {"cpu_seconds": round(used[frames], 2)}  # of the whole run, its start and the short clip too
        show({"frames": frames, **{key: line.get(key) for key in shown}, **cost})
    for short, long in pairwise(lines):
        rate = (long - short) / (lines[long]["total_seconds"] - lines[short]["total_seconds"])
        cost = (used[long] - used[short]) / (long - short)
        show({"between": [short, long], "frames_per_second": round(rate, 2), "real_time_factor": 24 / rate,
              "cpu_seconds_per_frame": round(cost, 4)})  # fmt: skip
    return Exit.OK


def cpu_seconds() -> float:
    """Return the processor seconds of all runs so far, which do not hang on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clips(folder: Path, lengths: Sequence[int], warm: bool = False) -> Path:
    """Make a data folder with a clip of each length, if it is not there."""
    named = {_name(frames): (HELD_OUT_SEED, frames) for frames in lengths}
    if warm:
        named = {"a-warm": (HELD_OUT_SEED + 1, WARM), **named}
    if not (folder / "videos" / f"{[*named][-1]}.mp4").is_file():
        write_sample_data(folder, write_clip, named)
    return folder


def made(data: Path, args: argparse.Namespace, out: Path, *more: str) -> dict[str, dict]:
    """Return the manifest lines of a data folder's videos by id, which are made if they are not there."""
    say(f"{out}")
    command = [sys.executable, "infer.py", "--data", data, "--recipe", args.recipe, "--out", out, *more]
    if args.tiny or args.half_size:
        other = tiny_generator(args.out, steps=25) if args.tiny else f"{__file__}:{HalfSize.__name__}"
        command += ["--generator", other, "--backend", "torch"]
    if subprocess.run([*map(str, command)], cwd=ROOT).returncode:
        raise EngineError("infer.py failed; what it says is above")
    return finished_lines(out)


def _name(frames: int) -> str:
    return f"clip-{frames:05}"


if __name__ == "__main__":
    run(main)
