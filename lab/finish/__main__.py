"""Make the cover network that finish runs.

python -m lab.finish export --precision fp16,int8     its graphs, checked
python -m lab.finish train --run runs/cover           its weights from nothing; again: resume
python -m lab.finish evaluate --out runs/finish       all figures, on held-out rendered videos
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from engines.artifact import built_folder
from engines.cli import check_numbers, common_arguments, ending, folder, new_parser, run, say
from engines.errors import Exit
from engines.onnx.export import Target
from engines.precision import PRECISIONS, choose_precisions
from finish.scorer import WEIGHTS, Cover
from lab.finish.export import export_cover


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.finish", lambda: args.run_command(args))


def run_export(args: argparse.Namespace) -> Exit:
    """Graphs, and with --target TensorRT engines."""
    precisions = [choose_precisions(each, ["score"])["score"] for each in args.precision.split(",")]
    target = Target(args.out or built_folder(Cover.name), say, args.force)
    made = export_cover(precisions, target)
    if args.target:
        from engines.tensorrt.build import build, place_orders
        from engines.tensorrt.network import Settings
        from engines.tensorrt.targets import resolve_targets

        targets = resolve_targets(args.target)
        for precision in precisions:
            orders = place_orders(Cover(), {"score": precision}, target.folder, targets, Settings())
            made += [build(order, lambda share: None) for order in orders]
    for artifact in made:
        about = {"file": str(artifact.path), **artifact.manifest["facts"]}
        print(json.dumps(about) if args.json else artifact.path)
    return Exit.OK


def run_train(args: argparse.Namespace) -> Exit:
    """The cover network's weights."""
    from lab.finish.training import train
    from lab.presenter.train import Plan

    plan = Plan(args.steps, args.rate, warm_up=50, save_every=100)
    print(train(args.run, plan, args.out, start=args.start))
    return Exit.OK


def run_evaluate(args: argparse.Namespace) -> Exit:
    """Figures as JSON on stdout and in --out, beside the pictures of docs/finish.md."""
    from lab.finish.evaluate import evaluate

    print(json.dumps(evaluate(args.out, args.videos, args.clips, say), indent=1))
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.finish")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser("export", help="the cover network as ONNX graphs and TensorRT engines")
    common_arguments(
        export, "force", "json",
        precision={"default": "fp32", "help": f"several of {', '.join(PRECISIONS)}"},
        out={"help": "folder (engines/built/cover)"},
    )  # fmt: skip
    export.add_argument("--target", help="TensorRT engines too: gpu, or compute capabilities as 80,89")
    export.set_defaults(run_command=run_export)
    train = commands.add_parser("train", help="the cover network; again: go on")
    train.add_argument("--run", type=folder, required=True, help="folder for checkpoints and the log")
    train.add_argument("--steps", type=int, default=2000, help="of forty pictures each (2000)")
    train.add_argument("--rate", type=float, default=3e-3, help="of learning, at first (0.003)")
    train.add_argument("--start", type=Path, help="weights to begin from")
    train.add_argument("--out", type=folder, default=WEIGHTS, help="file for the weights (the bundled one)")
    train.set_defaults(run_command=run_train)
    judge = commands.add_parser("evaluate", help="figures and pictures on held-out rendered videos")
    judge.add_argument("--out", type=folder, required=True, help="folder")
    judge.add_argument("--videos", type=int, default=50, help="for covers (50)")
    judge.add_argument("--clips", type=int, default=30, help="for highlights, a minute each (30)")
    judge.set_defaults(run_command=run_evaluate)
    args = parser.parse_args()
    check_numbers(parser, args)
    return args


if __name__ == "__main__":
    run(main)
