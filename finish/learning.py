"""The commands that put heads on features of videos: features, fit and predict."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bench.similarity import load_extractor
from engines.cli import folder, say, show
from engines.errors import Exit, FolderError, InputError, UsageError
from engines.progress import Progress
from finish.cover import videos_of, write_whole
from finish.heads import KINDS, Table, describe, fit, predict, read_labels, read_table, write_table
from finish.predictions import dumped
from pipeline.batch.dataset import stem_of


def run_features(args: argparse.Namespace) -> Exit:
    """A row of features for each video that can be read."""
    videos, rows, failed = videos_of(args.video), {}, 0
    _writable(args.out)
    extractor = load_extractor(args.extractor)
    if extractor.spec.kind != "clip":
        raise InputError(f"{args.extractor} gives features of single frames; expected one of clips, as stfn")
    with Progress("features", len(videos)) as progress:
        for video in videos:
            try:
                rows[stem_of(video)] = describe(video, extractor)
            except InputError as error:
                say(f"finish: {error}")
                failed += 1
            progress.tick()
    if not rows:
        return Exit.INPUT
    write_table(Table(list(rows), np.stack(list(rows.values())), extractor.name), args.out)
    return Exit.SOME_FAILED if failed else Exit.OK


def run_fit(args: argparse.Namespace) -> Exit:
    """A head, and its figures on videos left out."""
    _writable(args.out)
    if args.kind != "like" and not args.labels:
        raise UsageError("fit needs a file of labels, but for --kind like")
    labels = read_labels(args.labels, args.target) if args.labels else {}
    groups = read_labels(args.labels, args.group) if args.labels and args.group else {}
    if args.group and not groups:
        raise InputError(f"{args.labels}: no line has a {args.group}; give --group a name that lines have")
    show(fit(read_table(args.features), labels, args.kind, args.target, args.out, groups))
    return Exit.OK


def run_predict(args: argparse.Namespace) -> Exit:
    """A line for each video."""
    _writable(args.out)
    write_whole(args.out, b"".join(map(dumped, predict(args.head, read_table(args.features), args.nearest))))
    return Exit.OK


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the three to a script's commands."""
    table = commands.add_parser("features", help="what videos are like, as numbers (.npz)")
    table.add_argument("video", type=Path, help="a video, or a folder of videos")
    table.add_argument("--extractor", default="stfn", help="name or JSON file, of clips (stfn)")
    table.set_defaults(run_command=run_features)
    head = commands.add_parser("fit", help="a head on features; prints its figures on videos left out")
    head.add_argument("features", type=Path)
    head.add_argument("labels", type=Path, nargs="?", help="JSONL: video_id and the target; not for like")
    head.add_argument("--target", default="click_through_rate", help="what it is called (click_through_rate)")
    head.add_argument("--kind", choices=KINDS, default="number", help="ridge, logistic, nearest (number)")
    head.add_argument("--group", help="name of what is left out together in the figures, as brand")
    head.set_defaults(run_command=run_fit)
    guess = commands.add_parser("predict", help="what a head says of videos (JSONL)")
    guess.add_argument("head", type=Path)
    guess.add_argument("features", type=Path)
    guess.add_argument("--nearest", type=int, default=5, help="videos that are named by like (5)")
    guess.set_defaults(run_command=run_predict)
    for command in (table, head, guess):
        command.add_argument("--out", type=folder, required=True, help="file")


def _writable(out: Path) -> None:
    if out.is_dir() or not out.parent.is_dir():
        raise FolderError(f"{out}: cannot be written; expected a file in a folder that exists")
