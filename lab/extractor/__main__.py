"""Make the bundled feature extractor, and measure what the judge's checks catch.

python -m lab.extractor train --run runs/stfn                from nothing; again: go on
python -m lab.extractor pool --run runs/rows                 its pooling over time, on rows that are kept
python -m lab.extractor sensitivity --out docs/sensitivity.md    what the gate and the checks catch
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.judge import Judge
from bench.similarity import EXTRACTORS, load_extractors
from engines.cli import SAMPLE, common_arguments, ending, folder, new_parser, run, say
from engines.errors import Exit
from lab.extractor.sensitivity import (
    INTRODUCTION,
    MOST_FRAMES,
    Material,
    control_table,
    measure_all,
    table,
)


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.extractor", lambda: args.run_command(args))


def run_sensitivity(args: argparse.Namespace) -> Exit:
    """Measure what is caught, on the videos of a data folder."""
    judge = Judge(load_extractors(args.extractors))
    folders = args.other_engine, args.other_seed, args.harmless, args.harmful, args.real
    material = Material(*folders, only=args.only, most=args.frames)
    groups = measure_all(args.data, material, judge, say)
    text = table(groups, judge)
    control = control_table(groups["rendered"])
    text += f"\n\n## Control fidelity\n\n{control}" if control else ""
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(f"{INTRODUCTION}\n{text}\n", encoding="utf-8")
    print(text)
    wrong = [row.defect.name for rows in groups.values() for row in rows if not row.as_wanted]
    if wrong:
        say(f"not as wanted in every video: {', '.join(wrong)}")
    return Exit.SIMILARITY if wrong else Exit.OK


def run_train(args: argparse.Namespace) -> Exit:
    """Train our own extractor, from nothing or from where a run stopped."""
    from lab.extractor.stfn_training import train

    more = {"start": args.start, "footage": args.footage, "rate": args.rate}
    print(train(args.run, args.steps, args.out, **more))
    return Exit.OK


def run_pool(args: argparse.Namespace) -> Exit:
    """Fit the extractor's pooling over time again."""
    from lab.extractor.pool_training import PoolFit, fit_pool

    fit = PoolFit(args.batches, args.near, args.steps, args.rate, args.fits)
    print(fit_pool(args.run, fit, args.out, args.start, args.footage))
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.extractor")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    caught = commands.add_parser("sensitivity", help="defects, and what catches them; 5 if nothing does")
    common_arguments(
        caught, "extractors",
        data={"default": SAMPLE, "help": "its outputs/ are used"},
        out={"help": "Markdown file for the table, stdout has it too"},
    )  # fmt: skip
    caught.add_argument("--other-engine", type=Path, help="the same videos made by another engine in fp32")
    caught.add_argument("--other-seed", type=Path, help="the base model's videos of another seed")
    caught.add_argument("--harmless", type=Path, nargs="+", default=[], help="folders that must pass")
    caught.add_argument("--harmful", type=Path, nargs="+", default=[], help="folders that must be caught")
    caught.add_argument("--real", type=Path, help="folder of camera footage, with faces.csv if known")
    caught.add_argument("--only", nargs="+", default=[], metavar="NAME", help="changes to make (all)")
    caught.add_argument("--frames", type=int, default=MOST_FRAMES, help=f"of a clip, at most ({MOST_FRAMES})")
    caught.set_defaults(run_command=run_sensitivity)
    train = commands.add_parser("train", help="stfn, on rendered clips; again: go on")
    train.add_argument("--run", type=folder, required=True, help="folder for checkpoints and the log")
    train.add_argument("--steps", type=int, default=1000, help="of nine clips each (1000)")
    train.add_argument("--start", type=Path, help="folder of graphs to begin from instead of nothing")
    train.add_argument("--footage", type=Path, help="folder of videos and pictures, parts of which join")
    train.add_argument("--rate", type=float, default=1e-3, help="of learning (1e-3)")
    train.add_argument("--out", type=folder, default=EXTRACTORS, help="folder (bench/extractors)")
    train.set_defaults(run_command=run_train)
    pool = commands.add_parser(
        "pool", help="stfn's pooling over time, on rows of clips that are kept; again: go on"
    )
    pool.add_argument("--run", type=folder, required=True, help="folder for the rows")
    pool.add_argument("--batches", type=int, default=640, help="of eleven clips each (640)")
    pool.add_argument("--near", type=int, default=200, help="clips with six nearly like each (200)")
    pool.add_argument("--steps", type=int, default=400, help="of eight batches and six near clips each (400)")
    pool.add_argument("--fits", type=int, default=2, help="whose weights' mean is kept (2)")
    pool.add_argument(
        "--start", type=Path, default=EXTRACTORS, help="graphs to begin from (bench/extractors)"
    )
    pool.add_argument("--footage", type=Path, help="folder of videos and pictures, parts of which join")
    pool.add_argument("--rate", type=float, default=5e-4, help="of learning (5e-4)")
    pool.add_argument("--out", type=folder, default=EXTRACTORS, help="folder (bench/extractors)")
    pool.set_defaults(run_command=run_pool)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
