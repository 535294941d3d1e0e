"""Make the joint finders that control fidelity is measured with.

python -m lab.joints train --subject presenter --run runs/presenter
python -m lab.joints train --subject skeleton --run runs/skeleton
python -m lab.joints poses --out out/poses       other poses than asked for, to make and to hold against
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from bench.pose import POSE_MODELS
from engines.cli import ending, folder, new_parser, run
from engines.errors import Exit
from lab.presenter.render.clip import FPS
from pipeline.video.reader import VideoWriter


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


def run_poses(args: argparse.Namespace) -> Exit:
    """Write data folders of held-out people in other poses."""
    from lab.joints.poses import write_poses

    def write_video(path: Path, frames: np.ndarray) -> None:
        with VideoWriter(path, *frames.shape[2:0:-1], FPS, lossless=True) as writer:
            for frame in frames:
                writer.write(frame)

    write_poses(args.out, args.count, args.frames, write_video)
    print(args.out)
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.joints")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="a joint finder; again: go on")
    train.add_argument("--subject", required=True, choices=("presenter", "skeleton"), help="what it looks at")
    train.add_argument("--run", type=folder, required=True, help="folder for the checkpoint and the log")
    train.add_argument("--steps", type=int, default=1000, help="of 16 pictures each (1000)")
    train.add_argument("--threads", type=int, default=1, help="of the processor (1)")
    train.add_argument("--out", type=folder, default=POSE_MODELS, help="folder (bench/pose_models)")
    train.set_defaults(run_command=run_train)
    poses = commands.add_parser("poses", help="data folders that ask held-out people for other poses")
    poses.add_argument("--out", type=folder, required=True, help="folder")
    poses.add_argument("--count", type=int, default=6, help="of people (6)")
    poses.add_argument("--frames", type=int, default=24, help="of each (24)")
    poses.set_defaults(run_command=run_poses)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
