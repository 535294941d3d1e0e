"""Judge videos, and time the ways to make them.

python -m bench --candidate out                       finished videos against DATA/outputs
python -m bench --recipes a.toml b.toml               recipes side by side, timed and judged
python -m bench compare old/report.json new/report.json    exit 5 or 6 on a regression
python -m bench waterfall report/report.json         where the time goes, and the floor
python -m bench backends                              engines on one clip, interleaved
python -m bench demo                                  the sample videos by a recipe: how fast, how near
python -m bench extractor export                      a checkpoint of open_clip as feature extractor

The report (index.html, report.json, report.md) goes to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from bench.base_again import base_judged, manifest_ratio
from bench.beside import AGAIN, ANOTHER_SEED
from bench.compare import compare
from bench.demo import make_demo
from bench.engine_bench import Clip
from bench.engine_bench import compare as compare_ways
from bench.engine_bench import table as table_of_ways
from bench.judge import Judge, judge_folder
from bench.pose import PRESENTER, load_pose_model
from bench.report import check_report_place, write_report
from bench.similarity import EXTRACTORS, load_extractor, load_extractors
from bench.timing import Job, time_recipes
from bench.verdict import Question, exit_status, make_report, run_entry
from bench.video_folders import CANDIDATE, REFERENCE, Folders, check_apart, find_wanted
from bench.waterfall import bars_of, draw_waterfall
from engines.cli import (
    SAMPLE,
    check_numbers,
    common_arguments,
    ending,
    folder,
    new_parser,
    printable,
    run,
    say,
)
from engines.doctor import examine
from engines.errors import Exit, UsageError
from generators.contract import load_generator
from pipeline.batch.dataset import find_requests, first_requests
from pipeline.batch.run_folder import check_replaced
from pipeline.columns import read_columns
from pipeline.recipe import BASELINE, load_recipe
from pipeline.request import read_opening

COMMANDS = ("judge", "compare", "waterfall", "backends", "demo", "extractor")
FAST = Path(__file__).parents[1] / "optimize" / "recipes" / "fast.toml"
WAYS = [
    "torch:bf16", "torch-compile:fp32", "onnxruntime:fp32", "onnxruntime:fp16",
    "onnxruntime:fp32,denoise=int8-fp32", "openvino:fp32", "openvino:fp16", "openvino:bf16",
    "openvino:bf16,denoise=int8",
]  # fmt: skip


def main() -> Exit:
    """Parse, call, print."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments.insert(0, "judge")
    args = parse(arguments)
    return ending("bench", lambda: args.run_command(args))


def run_judge(args: argparse.Namespace) -> Exit:
    """Judge a folder of videos, or those that recipes make."""
    load = os.getloadavg()
    load_pose_model(args.pose_model)  # what is wrong with it is said before the work
    judge = Judge(load_extractors(args.extractors), pose_model=args.pose_model)
    reference = args.reference or args.data / "outputs"
    skeletons = skeletons_of(args, reference)
    names = [extractor.name for extractor in judge.extractors]
    beside = {ANOTHER_SEED: args.other_seed, AGAIN: args.base_again}
    beside = {name: given for name, given in beside.items() if given}
    candidate = {CANDIDATE: args.candidate} if args.candidate else {}
    videos = args.out / "videos"
    check_apart({REFERENCE: reference, **candidate, **beside}, None if args.candidate else videos)
    find_wanted(reference, beside)  # what is wrong with these too
    check_report_place(args.out)
    question = Question(args.data, reference, names, args.time_threshold, args.rounds, load, beside)

    def entry(name: str, folder: Path, measured: dict | None = None) -> dict:
        say(f"judging {name}")
        comparisons = judge_folder(judge, Folders(reference, folder, skeletons, beside), say)
        found = run_entry(name, folder, comparisons, question, measured)
        if base := base_judged(folder, reference):
            found["base"] = base
        bases = [args.base_again, reference] if args.base_again else [reference]
        return found if measured else {**found, "manifests": manifest_ratio(folder, bases)}

    if args.candidate is None:
        job = Job(args.data, videos, args.generator, args.device, args.rounds, args.lossless)
        recipes = [load_recipe(path) for path in args.recipes or ()]
        measured = time_recipes(recipes, job, say)
        runs = [entry(each["name"], Path(each["folder"]), each) for each in measured]
        baseline = next((recipe.name for recipe in recipes if recipe.is_baseline), BASELINE.name)
        report = make_report(runs, question, baseline, measured[0]["noise_floor"])
    else:
        report = make_report([entry(args.candidate.name, args.candidate)], question)
    page = write_report(report, args.out, args.lossless)
    if args.json:
        print(json.dumps(report, allow_nan=False))
    else:
        print((args.out / "report.md").read_text(encoding="utf-8"), end="")
    say(f"report: {page}")
    return exit_status(report["runs"])


def skeletons_of(args: argparse.Namespace, reference: Path) -> dict[str, Path]:
    """Find the skeleton videos by id; the bundled sample's own are not those of other people's videos.

    So without --data they are taken only where its videos are the reference, or recipes make them.
    """
    others = reference.resolve() != (SAMPLE / "outputs").resolve()
    if args.candidate and args.data is SAMPLE and others:
        return {}
    return {request.id: request.video for request in find_requests(args.data).requests}


def run_compare(args: argparse.Namespace) -> Exit:
    """Hold a report against an older one."""
    try:
        found = compare(read_json(args.old), read_json(args.new))
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(printable(str(found)))
    return found.exit


def run_waterfall(args: argparse.Namespace) -> Exit:
    """Draw where a timed report's seconds go."""
    check_replaced(args.out)
    try:
        bars = bars_of(read_json(args.report), load_generator(args.generator), args.device)
    except ValueError as error:
        raise UsageError(f"{args.report}: {error}") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{args.report} is no report.json of timed recipes") from error
    draw_waterfall(bars, args.out)
    for bar in bars:
        print(f"{printable(bar.name)}: {bar.seconds:.2f} s a video, floor {bar.roofline:.2f} s")
    return Exit.OK


def run_backends(args: argparse.Namespace) -> Exit:
    """Compare engines on the first frames of one request."""
    if args.report:
        check_replaced(args.report)
    generator = load_generator(args.generator)
    request = first_requests(args.data, 1)[0]
    columns = read_columns(request, generator, notes=[])
    clip = Clip(*read_opening(request, generator, args.frames), request.seed, columns)
    figures = compare_ways(generator, clip, args.ways, args.device, args.rounds, say)
    machine = examine()
    report = {
        "what": "python -m bench backends",
        "generator": generator.name,
        "frames": len(clip.skeletons),
        "size": list(generator.size),
        "steps": generator.scheduler.steps,
        "guidance": generator.guidance,
        "device": args.device,
        "rounds": args.rounds,
        "load_average": list(os.getloadavg()),
        "machine": {key: machine[key] for key in ("system", "python", "processor", "cores", "packages")},
        "ways": figures,
    }
    if args.report:
        args.report.write_text(json.dumps(report, indent=1) + "\n")
    print(table_of_ways(figures))
    return Exit.OK


def run_demo(args: argparse.Namespace) -> Exit:
    """Make the demo."""
    table, status = make_demo(args.generator, args.data, args.recipe, args.out, say)
    print(table)
    return status


def read_json(path: Path) -> dict:
    """Read a report's JSON; UsageError says what is wrong with the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error


def run_extractor_export(args: argparse.Namespace) -> Exit:
    """Export an open_clip checkpoint as an extractor."""
    from bench.open_clip import export_open_clip

    path = export_open_clip(args.name, args.open_clip, args.checkpoint, args.out)
    load_extractor(str(path))
    print(path)
    return Exit.OK


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; without a command it is judge."""
    parser = new_parser(__doc__, "python -m bench")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_judge(commands.add_parser("judge", help="the default: videos, or recipes, against references"))
    against = commands.add_parser("compare", help="hold a report.json against an older one")
    against.add_argument("old", type=Path)
    against.add_argument("new", type=Path)
    against.set_defaults(run_command=run_compare)
    fall = commands.add_parser("waterfall", help="draw where the seconds of timed recipes go")
    fall.add_argument("report", type=Path, help="report.json of timed recipes")
    common_arguments(
        fall, "generator", "device", out={"default": Path("waterfall.png"), "help": "the picture"}
    )
    fall.set_defaults(run_command=run_waterfall)
    _add_backends(commands.add_parser("backends", help="engines on one clip, in interleaved rounds"))
    demo = commands.add_parser("demo", help="sample videos by a recipe, one by the base model, judged")
    demo.add_argument("--recipe", type=Path, default=FAST, help="the recipe (optimize/recipes/fast.toml)")
    common_arguments(
        demo, "generator", data={"default": SAMPLE}, out={"default": Path("out/demo"), "help": "folder"}
    )
    demo.set_defaults(run_command=run_demo)
    extractor = commands.add_parser("extractor", help="make feature extractors")
    make = extractor.add_subparsers(required=True)
    export = make.add_parser("export", help="from an open_clip checkpoint")
    export.add_argument("--open-clip", required=True, metavar="MODEL", help="as ViT-B-32-quickgelu")
    export.add_argument("--checkpoint", type=Path, required=True, help="the file of its weights")
    export.add_argument("--name", default="clip", help="of the extractor (clip)")
    common_arguments(export, out={"default": EXTRACTORS, "help": "folder"})
    export.set_defaults(run_command=run_extractor_export)
    args = parser.parse_args(arguments)
    check_numbers(parser, args)
    if args.run_command is run_judge and bool(args.candidate) == bool(args.recipes):
        parser.error("give either --candidate or --recipes")
    if args.run_command is run_judge and args.candidate and args.time_threshold is not None:
        parser.error("--time-threshold goes with --recipes: finished videos were not timed")
    return args


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--candidate", type=Path, help="folder of finished videos")
    parser.add_argument("--recipes", type=Path, nargs="+", metavar="TOML", help="recipes to run and judge")
    parser.add_argument("--reference", type=Path, help="the base model's videos (DATA/outputs)")
    parser.add_argument("--other-seed", type=Path, help="the base model's videos of another seed: the scale")
    parser.add_argument("--base-again", type=Path, help="the base model's videos made again: the noise floor")
    parser.add_argument(
        "--pose-model", default=PRESENTER, metavar="JSON", help="finds joints: control fidelity (presenter)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of timing recipes (3)")
    common_arguments(
        parser, "extractors", "time-threshold", "lossless", "generator", "device", "json",
        data={"default": SAMPLE},
        out={"default": Path("report"), "help": "folder for the report"},
    )  # fmt: skip
    parser.set_defaults(run_command=run_judge)


def _add_backends(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ways", nargs="+", default=WAYS, help="backend:precision, several")
    common_arguments(
        parser, "generator", "device", data={"default": SAMPLE, "help": "its first pair is used"}
    )
    parser.add_argument("--frames", type=int, default=16, help="of the clip, from its start (16)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs of every way (3)")
    parser.add_argument("--report", type=folder, help="write all figures as JSON here")
    parser.set_defaults(run_command=run_backends)


if __name__ == "__main__":
    run(main)
