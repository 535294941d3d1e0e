"""Make the joint finders that control fidelity is measured with.

python -m lab.joints train --subject presenter --run runs/presenter
python -m lab.joints train --subject skeleton --run runs/skeleton
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from bench.pose import POSE_MODELS
from engines.cli import ending, new_parser, run
from engines.errors import Exit


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.joints", lambda: args.run_command(args))


def run_train(args: argparse.Namespace) -> Exit:
    """Train one finder, from nothing or from where a run stopped."""
    import torch

    from lab.joints.training import train
    from lab.presenter.train import Plan

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    plan = Plan(args.steps, 3e-3, warm_up=50, batch=16)
    print(train(args.subject, args.run, plan, args.out))
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.joints")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="a joint finder; again: go on")
    train.add_argument("--subject", required=True, choices=("presenter", "skeleton"), help="what it looks at")
    train.add_argument("--run", type=Path, required=True, help="folder for the checkpoint and the log")
    train.add_argument("--steps", type=int, default=1600, help="of 16 pictures each (1600)")
    train.add_argument("--threads", type=int, default=1, help="of the processor (1)")
    train.add_argument("--out", type=Path, default=POSE_MODELS, help="folder (bench/pose_models)")
    train.set_defaults(run_command=run_train)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
