"""Make the bundled feature extractor, and measure what the judge's checks catch.

python -m lab.extractor train --run runs/stfn                from nothing; again: go on
python -m lab.extractor sensitivity --out docs/sensitivity.md    what the gate and the checks catch
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.judge import Judge
from bench.similarity import EXTRACTORS, load_extractor
from engines.cli import SAMPLE, common_arguments, ending, folder, new_parser, run, say
from engines.errors import Exit
from lab.extractor.sensitivity import INTRODUCTION, MOST_FRAMES, Material, measure_all, table


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.extractor", lambda: args.run_command(args))


def run_sensitivity(args: argparse.Namespace) -> Exit:
    """Measure what is caught, on the videos of a data folder."""
    judge = Judge([load_extractor(name) for name in args.extractors])
    material = Material(args.other_engine, args.other_seed, args.harmless, args.real, args.frames)
    groups = measure_all(args.data, material, judge, say)
    text = table(groups, judge)
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

    print(train(args.run, args.steps, args.out))
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
    caught.add_argument("--real", type=Path, help="folder of camera footage, with faces.csv if known")
    caught.add_argument("--frames", type=int, default=MOST_FRAMES, help=f"of a clip, at most ({MOST_FRAMES})")
    caught.set_defaults(run_command=run_sensitivity)
    train = commands.add_parser("train", help="stfn, on rendered clips; again: go on")
    train.add_argument("--run", type=folder, required=True, help="folder for checkpoints and the log")
    train.add_argument("--steps", type=int, default=1000, help="of nine clips each (1000)")
    train.add_argument("--out", type=folder, default=EXTRACTORS, help="folder (bench/extractors)")
    train.set_defaults(run_command=run_train)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
