"""Find the fastest recipe whose videos still are the base model's.

DATA holds videos/, images/ and outputs/, the base model's own videos. A planner proposes at which steps the
denoiser is evaluated; real runs on these videos decide. The recipe goes to --out, and what was measured to a
folder beside it, where the same command finds it again and goes on.

  python tune.py --out fast.toml                               the bundled sample data, similarity 0.97
  python tune.py --data DATA --similarity 0.99 --psnr 35 --out faithful.toml
  python tune.py --technique teacache --out teacache.toml      a published technique's settings instead
  python infer.py --recipe fast.toml
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from bench.quality_goal import Goal
from engines.cli import SAMPLE, common_arguments, ending, new_parser, run, say
from engines.errors import Exit
from optimize.steps.tune import TuningJob, tune_folder
from optimize.techniques import MOST, tune_technique
from pipeline.caches.technique import TECHNIQUES, TechniqueChoice
from pipeline.recipe import BASELINE, Recipe, RecipeError, load_recipe

CPU = Path(__file__).resolve().parent / "optimize" / "recipes" / "cpu.toml"


def main() -> Exit:
    """Parse, call, print."""
    args, goal = parse()
    words = "interrupted; the same command goes on from here"
    return ending("tune.py", lambda: tune(args, goal), words)


def tune(args: argparse.Namespace, goal: Goal) -> Exit:
    """Find the recipe."""
    job = TuningJob(args.data, args.generator, args.device, lossless=args.lossless)
    if args.technique:
        found = tune_technique(job, goal, start_of(args), args.out, say, args.most)
        best, runs = found.best, len(found.tried)
        say(f"{args.out}: the fastest of {runs} settings")
    else:
        recipes = [load_recipe(path) for path in args.start or [CPU]]
        for recipe in recipes:
            if recipe.technique:
                raise RecipeError(f"{recipe.name}: [technique]: plans are tuned without; see --technique")
        tuned = tune_folder(job, goal, recipes, args.out, say)
        best, runs = tuned.best, tuned.runs
        say(f"{args.out}: {best.recipe.steps.branches} evaluations a window, found in {runs} runs")
    if args.json:
        videos = [asdict(video) for video in best.videos]
        print(json.dumps({"recipe": str(args.out), "runs": runs, "videos": videos}))
    return Exit.OK


def start_of(args: argparse.Namespace) -> Recipe:
    """The recipe whose engines a technique is tried on; without --start those of the base model."""
    recipe = load_recipe(args.start[0]) if args.start else BASELINE
    return replace(recipe, name=args.out.stem, steps=None, technique=TechniqueChoice(args.technique))


def parse() -> tuple[argparse.Namespace, Goal]:
    """The command line, and the goal in it."""
    parser = new_parser(__doc__)
    common_arguments(
        parser, "generator", "device", "lossless", "json",
        data={"default": SAMPLE, "help": "folder with videos/, images/ and outputs/"},
        out={"required": True, "help": "the recipe's file"},
    )  # fmt: skip
    parser.add_argument("--similarity", type=float, default=0.97, help="at least, of every video (0.97)")
    parser.add_argument("--psnr", type=float, default=0.0, help="at least, in dB, of every video (0)")
    parser.add_argument(
        "--start", type=Path, nargs="+",
        help="recipes whose engines, precisions and plans are tried (optimize/recipes/cpu.toml); for "
        "--technique one, of engines alone (the base model's)",
    )  # fmt: skip
    parser.add_argument(
        "--technique", choices=list(TECHNIQUES), metavar="NAME",
        help="find settings of this one; python -m pipeline.caches list has them",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=MOST, help=f"settings of a technique to try ({MOST})")
    args = parser.parse_args()
    if args.out.suffix != ".toml":
        parser.error(f"--out must end in .toml, got {args.out}")
    if args.technique and len(args.start or ()) > 1:
        parser.error("--technique takes one recipe as --start")
    if args.most < 1:
        parser.error(f"--most must be 1 or more, got {args.most}")
    try:
        return args, Goal(args.similarity, args.psnr)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    run(main)
