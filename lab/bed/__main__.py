"""A test bed for the presenter's recipes: inputs like the tuning set and unlike it, and runs on them.

python -m lab.bed make --out BED --real ../shared/real     inputs and base runs; again: goes on
python -m lab.bed judge --out BED --recipe optimize/recipes/fast.toml      as its videos would be judged
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

from bench.judge import Judge
from bench.score import LEVELS
from bench.similarity import load_extractor
from engines.cli import ending, folder, new_parser, run, say
from engines.errors import Exit
from generators.presenter.generator import Presenter
from lab.bed.inputs import PARTS, Real, like, unlike
from lab.bed.runs import Runner, write_inputs
from lab.bed.verdict import Bench, Row, folder_of, rows, table
from pipeline.batch.dataset import find_requests
from pipeline.recipe import load_recipe

ANOTHER_SEED = {"like": 20, "calibration": 10, "heldout": 10}  # samples that are run with another seed too


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.bed")
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="render and fit inputs, run the base model on them")
    make.add_argument("--out", type=folder, required=True, help="folder of the bed")
    make.add_argument("--real", type=Path, required=True, help="folder with skeletons/, images/, footage/")
    make.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    make.set_defaults(run_command=run_make)
    judge = commands.add_parser("judge", help="run recipes on what is there, judge them, ask their guards")
    judge.add_argument("--out", type=folder, required=True, help="folder of the bed")
    judge.add_argument("--recipe", type=Path, nargs="+", required=True, help="TOML files")
    judge.add_argument("--level", choices=LEVELS, help="that videos must keep to (the recipe's name)")
    judge.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    judge.add_argument("--known", action="store_true", help="only what has been run already")
    judge.set_defaults(run_command=run_judge)
    args = parser.parse_args()
    return ending("lab.bed", lambda: args.run_command(args) or Exit.OK)


def run_make(args: argparse.Namespace) -> None:
    """Write inputs, then make base runs of them."""
    generator = Presenter()
    for part in args.part:
        samples = like() if part == "like" else unlike(part, Real(args.real, generator))
        write_inputs(args.out / part, samples, generator)
    runner = Runner(generator, say)
    requests = {part: find_requests(args.out / part).requests for part in args.part}
    for turn in zip_longest(*requests.values()):
        for part, request in zip(requests, turn, strict=True):
            if request:
                runner.base(args.out / part, request)
    for part, count in ANOTHER_SEED.items():
        for request in requests.get(part, ())[:count]:
            runner.another_seed(args.out / part, request)


def run_judge(args: argparse.Namespace) -> None:
    """Run recipes in fp32 and without their guard, and ask the guard afterwards."""
    bench = Bench(Judge([load_extractor("stfn")]), Presenter())
    runner = None if args.known else Runner(bench.generator, say)
    for path in args.recipe:
        recipe = load_recipe(path)
        found: list[Row] = []
        for part in (args.out / part for part in args.part):
            for request in find_requests(part).requests if runner else ():
                runner.recipe(request, recipe, folder_of(part, recipe))
            found += rows(bench, part, recipe, LEVELS[args.level or recipe.name])
        (args.out / f"{recipe.name}.json").write_text(json.dumps([asdict(row) for row in found], indent=1))
        print(f"\n{recipe.name}\n")
        print("\n".join(table(found)))


if __name__ == "__main__":
    run(main)
