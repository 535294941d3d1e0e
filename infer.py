"""Generate the videos of a data folder.

DATA holds videos/ (skeleton key-point videos) and images/ (the person); each pair becomes OUT/<id>.mp4,
with a line in OUT/manifest.jsonl. The same command again keeps what is finished and makes the rest.

  python infer.py                                  the bundled sample data, to out/
  python infer.py --data DATA --out OUT --json     another folder; the manifest lines on stdout
  python infer.py --generator my_model.py:MyModel  a generator of your own
  python infer.py --recipe optimize/recipes/cpu.toml                  a faster run, after export_onnx.py
  python infer.py --backend openvino --precision fp16,denoise=int8    engine and precisions alone
  python infer.py --device cuda:0,cuda:1           a process on each; --workers 4 for four on processors
  python infer.py --ray HOST:6379 --device cuda    on a Ray cluster; see docs/cluster.md
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from engines.cli import SAMPLE, common_arguments, devices_of, ending, new_parser, run, say, show
from engines.errors import Exit, InputError
from engines.load import BACKENDS
from generators.resize import FITS
from generators.weight_files import licences
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import SEED, SEEDS, Pairing, find_requests
from pipeline.batch.overwriting import check_ours
from pipeline.batch.run_folder import RunFolder
from pipeline.recipe import BASELINE, Recipe, load_recipe
from pipeline.runner import Settings, start_runner
from pipeline.source import Limits
from pipeline.submission import build_engines_once, entry_defaults
from pipeline.video.base_colours import as_base_videos

HERE = Path(__file__).resolve().parent


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("infer.py", lambda: make(args), "interrupted; finished videos are kept")


def make(args: argparse.Namespace) -> Exit:
    """Make the videos that are not finished."""
    pairing = pairs_of(args)
    check_ours(args.out, args.data, pairing.requests, args.restart)
    with RunFolder(args.out, args.restart) as folder:
        limits = Limits(args.max_frames, args.max_pixels)
        settings = Settings(
            args.generator, chosen_recipe(args), args.devices[0], args.lossless, limits, args.fit, args.stream
        )
        if args.build:
            generator = settings.load()
            choice = settings.recipe.choice(generator, settings.device)
            build_engines_once(args.generator, generator, choice, HERE, say)
        open_jobs = partial(Jobs, pairing, folder, say=say, emit=show if args.json else None)
        devices = workers_of(args, len(pairing.requests))
        if args.ray:
            from pipeline.parallel.ray_cluster import run_cluster

            jobs = run_cluster(settings, args.ray, args.workers, open_jobs, say)
        elif len(devices) > 1:
            from pipeline.parallel.worker_pool import run_workers  # a single worker starts without it

            jobs = run_workers(settings, devices, args.out, open_jobs, say)
        else:
            if args.split > 1:
                from pipeline.parallel.window_parallel_runner import start_parallel_runner

                maker = start_parallel_runner(settings, args.devices, args.split, say)
            else:
                maker = start_runner(settings, say)
            for line in licences(maker.generator.fingerprint_files):
                say(line)
            jobs = open_jobs(maker.identity)
            run_here(jobs, maker)
    return jobs.conclude()


def pairs_of(args: argparse.Namespace) -> Pairing:
    """Find the requests; who has none, or gave no folder, is told where to ask what to do."""
    if args.data == SAMPLE and not args.recipe:
        say("the bundled sample data by the base model, which is slow; python -m engines doctor: what now?")
    try:
        return find_requests(args.data, args.seed)
    except InputError as error:
        raise InputError(f"{error}; what now? python -m engines doctor --data {args.data}") from error


def workers_of(args: argparse.Namespace, requests: int) -> list[str]:
    """The device of each worker: those of --device in turn, never more workers than videos."""
    if args.split > 1:
        return args.devices[:1]
    count = min(args.workers or len(args.devices), max(requests, 1))
    return [args.devices[i % len(args.devices)] for i in range(count)]


def chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe asked for, or the baseline; --backend and --precision come before what it says.

    Videos are written with its colours, or as those in DATA/outputs.
    """
    recipe = load_recipe(args.recipe) if args.recipe else BASELINE
    asked = {name: getattr(args, name) for name in ("backend", "precision") if getattr(args, name)}
    recipe = replace(recipe, **asked)
    return recipe if args.lossless else as_base_videos(recipe, args.data, say)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__)
    common_arguments(
        parser, "generator", "lossless", "json",
        data={"default": SAMPLE},
        out={"default": Path("out"), "help": "folder for the videos"},
        device={"help": "cpu, cuda, or one a worker: cuda:0,cuda:1"},
        backend={"choices": ["auto", *BACKENDS], "help": "what runs the networks (the recipe's, or torch)"},
        precision={"help": "one for all, then exceptions: fp16,denoise=int8 (the recipe's, or fp32)"},
        seed={"default": SEED},
    )  # fmt: skip
    parser.add_argument("--recipe", type=Path, help="what is changed to be fast: a TOML file (nothing)")
    parser.add_argument("--workers", type=int, help="processes that make videos (one a device)")
    parser.add_argument(
        "--max-frames", type=int, default=Limits.frames, help=f"of a video, at most ({Limits.frames})"
    )
    parser.add_argument("--max-pixels", type=int, help="of a frame or picture (33 and 89 million)")
    parser.add_argument("--fit", choices=FITS, help="how inputs of other shapes are fitted (its own way)")
    parser.add_argument("--restart", action="store_true", help="make finished videos anew too")
    parser.add_argument(
        "--stream", action="store_true",
        help="make frames piece by piece: the first come early, and memory does not grow with the video",
    )  # fmt: skip
    parser.add_argument(
        "--split", type=int, default=1, metavar="N", help="make each video with N processes, for latency (1)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="make them on the Ray cluster there; local: on one of its own"
    )
    parser.set_defaults(**{"build": False, **entry_defaults(HERE)})
    args = parser.parse_args()
    if not 0 <= args.seed < SEEDS:
        parser.error("--seed must be 0 or more, and below 2**63")
    args.devices = devices_of(parser, args.device)
    for name in ("split", "workers", "max_frames", "max_pixels"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, got {value}")
    if args.split > 1 and args.ray:
        parser.error("--split and --ray do not go together: a cluster's workers take a video each")
    if args.ray and (len(args.devices) > 1 or ":" in args.device):
        parser.error(
            f"--ray and --device {args.device} do not go together: Ray gives each worker its GPU; say cuda "
            "or cpu, and how many with --workers"
        )
    if args.stream and (args.split > 1 or args.ray):
        parser.error("--stream goes with neither --split nor --ray: one process makes all windows of a video")
    if args.split > 1 and (args.workers or 1) > 1:
        parser.error("--split and --workers do not go together: one is for latency, the other for throughput")
    return args


if __name__ == "__main__":
    run(main, within=4.5)
