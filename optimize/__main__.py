"""Show what a recipe changes, and how much is left to compute: python -m optimize show RECIPE."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from engines.cli import common_arguments, ending, new_parser, run
from engines.errors import Exit
from generators.contract import Generator, load_generator
from pipeline.recipe import BASELINE, Recipe, load_recipe
from pipeline.step_plan import base_plan


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m optimize")
    parser.add_argument("command", choices=["show"])
    parser.add_argument("recipe", type=Path, help="a TOML file")
    parser.add_argument("--frames", type=int, default=48, help="of the clip that is counted for (48)")
    common_arguments(parser, "generator", "json")
    args = parser.parse_args()
    if args.frames < 1:
        parser.error(f"--frames must be 1 or more, got {args.frames}")
    return ending("optimize", lambda: show_work(args))


def show_work(args: argparse.Namespace) -> Exit:
    """Print a recipe's settings, and its work compared with the baseline's."""
    recipe, generator = load_recipe(args.recipe), load_generator(args.generator)
    base, own = (work(each, generator, args.frames) for each in (BASELINE, recipe))
    if args.json:
        print(json.dumps({"recipe": recipe.settings(), "note": recipe.note, "work": own, "baseline": base}))
        return Exit.OK
    print(recipe.to_toml().strip() or "nothing is changed: the base model's run")
    print(f"\nA clip of {args.frames} frames, windows of {generator.windows.length}:")
    for key in own:
        print(f"  {key:28} {own[key]:6}   of the baseline's {base[key]:6} ({own[key] / base[key]:.1%})")
    if recipe.technique:
        print(f"\nWhat {recipe.technique.name} leaves out shows when it runs, and is not counted.")
    return Exit.OK


def work(recipe: Recipe, generator: Generator, frames: int) -> dict[str, int]:
    """Count a recipe's work for a clip: evaluated steps, windows in these steps, and evaluations.

    An evaluation is one branch of one window at one step. The guard does not fire here. RecipeError.
    """
    adapted = recipe.adapt(generator)
    windows, plan = adapted.windows, recipe.steps or base_plan(adapted)
    counts = [plan.windows(step, windows).count(frames) for step in plan.evaluated]
    calls = plan.calls(generator.guidance, windows, frames)
    return {"evaluated steps": len(counts), "windows": sum(counts), "evaluations": calls}


if __name__ == "__main__":
    run(main)
