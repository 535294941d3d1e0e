"""Generate the videos of a data folder.

DATA holds videos/ (skeleton key-point videos) and images/ (the person); each pair becomes OUT/<id>.mp4,
with a line in OUT/manifest.jsonl.

  python infer.py                                  the bundled sample data, to out/
  python infer.py --data DATA --out OUT --json     another folder; the manifest lines on stdout
  python infer.py --generator my_model.py:MyModel  a generator of your own
  python infer.py --recipe optimize/recipes/cpu-bf16.toml             a faster run, after export_onnx.py
  python infer.py --backend openvino --precision fp16,denoise=int8    engine and precisions alone
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from engines.artifact import built_files, built_folder
from engines.load import BACKENDS, Choice, start_engines
from engines.precision import PrecisionError, choose_precisions
from engines.spec import EngineError
from generators.contract import GeneratorError, load_generator
from generators.weight_files import licences
from optimize.recipe import BASELINE, Recipe, RecipeError, load_recipe
from pipeline.data import SEED, find_requests
from pipeline.errors import InputError, OutputError
from pipeline.exit_code import Exit
from pipeline.jobs import Run, check_writable, run_all
from pipeline.script import run, say, stop
from pipeline.submission import build_engines_once, entry_defaults

HERE = Path(__file__).resolve().parent


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    try:
        pairing = find_requests(args.data, args.seed)
        check_writable(args.out)
        recipe = chosen_recipe(args)
        generator = recipe.adapt(load_generator(args.generator))
        for line in licences(generator.sources):
            say(line)
        precisions = choose_precisions(recipe.precision, generator.components)
        choice = Choice(recipe.backend, precisions, args.device, built_folder(generator.name))
        if args.build:
            build_engines_once(args.generator, generator, choice, HERE, say)
        backend, engines = start_engines(generator, choice, say)
        ran_with = {"backend": backend, "precision": precisions, "device": args.device}
        ran_with["built"] = built_files(engines)
        job = Run(args.out, generator, engines, say, recipe, ran_with, args.lossless)
        lines, status = run_all(pairing, job)
    except InputError as error:
        return stop("infer.py", error, Exit.INPUT)
    except (OutputError, GeneratorError, PrecisionError, RecipeError) as error:
        return stop("infer.py", error, Exit.USAGE)
    except EngineError as error:
        return stop("infer.py", error, Exit.ENVIRONMENT)
    except MemoryError as error:
        return stop("infer.py", f"out of memory: {error}", Exit.EXHAUSTED)
    except KeyboardInterrupt:
        return stop("infer.py", "interrupted; finished videos are kept", Exit.INTERRUPTED)
    if args.json:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False))
    done = sum(line["status"] == "done" for line in lines)
    say(f"{done} of {len(lines)} videos are in {args.out}")
    return status


def chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe asked for, or the baseline; --backend and --precision come before what it says."""
    recipe = load_recipe(args.recipe) if args.recipe else BASELINE
    asked = {name: getattr(args, name) for name in ("backend", "precision") if getattr(args, name)}
    return replace(recipe, **asked)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sample = HERE / "data" / "sample"
    parser.add_argument(
        "--data", type=Path, default=sample, help="folder with videos/ and images/ (the sample)"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the videos (out/)")
    parser.add_argument("--generator", default="presenter", help="presenter, or path/to/file.py:Class")
    parser.add_argument("--recipe", type=Path, help="what is changed to be fast: a TOML file (nothing)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    parser.add_argument(
        "--backend", choices=["auto", *BACKENDS], help="what runs the networks (the recipe's, or torch)"
    )
    parser.add_argument(
        "--precision", help="one for all, then exceptions: fp16,denoise=int8 (the recipe's, or fp32)"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help=f"seed of requests that pairs.csv gives none ({SEED})"
    )
    parser.add_argument("--lossless", action="store_true", help="keep every pixel, to measure small changes")
    parser.add_argument("--json", action="store_true", help="print the manifest lines on stdout")
    parser.set_defaults(**{"build": False, **entry_defaults(HERE)})
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, got {args.seed}")
    return args


if __name__ == "__main__":
    run(main)
