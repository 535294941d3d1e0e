"""Choose covers, find highlights and cut them out.

python -m finish cover VIDEO|DIR --out covers                 the best frame of each video
python -m finish highlights --index INDEX.jsonl --videos DIR --out PREDICTIONS.jsonl
python -m finish check PREDICTIONS.jsonl --index INDEX.jsonl --videos DIR
python -m finish score PREDICTIONS.jsonl TRUTH.jsonl          100 is perfect
python -m finish cut PREDICTIONS.jsonl --videos DIR --out cuts    mp4 with sound
python -m finish features DIR --out FEATURES.npz              then `fit` and `predict`: heads on them
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from bench.similarity import EXTRACTORS, load_extractor
from engines.cli import (
    above_zero,
    check_numbers,
    common_arguments,
    ending,
    folder,
    new_parser,
    run,
    say,
    tell,
)
from engines.errors import Exit, FolderError, InputError
from engines.progress import Progress
from finish.cover import FRAMES, choose_cover, videos_of, write_whole
from finish.cut import cut, file_name
from finish.faces import find_faces
from finish.following import SMOOTH, SURE, Follow
from finish.highlights import PRUNE, Look, everything, highlights, predict
from finish.learning import add_commands
from finish.predictions import Frames, check_predictions, read_index
from finish.rules import KEY, ROUNDS, factor, model_size, size_faults, size_of
from finish.saliency import Detector
from finish.score import score_file
from finish.scorer import WEIGHTS, Scorer, own_scorer, start_scorer
from finish.signals import Eyes, measure
from finish.watching import Gaze, watch
from pipeline.batch.dataset import stem_of
from pipeline.batch.overwriting import identity


def main() -> Exit:
    """Parse, call, print."""
    args = parse(sys.argv[1:])
    return ending("finish", lambda: args.run_command(args))


def run_cover(args: argparse.Namespace) -> Exit:
    """A PNG beside each video's name, and a line on stdout."""
    from PIL import Image

    videos = videos_of(args.video)
    pictures = (identity(video.absolute().parent.parent / "images") for video in videos)
    if (place := identity(args.out)) and place in pictures:
        raise FolderError(
            f"{args.out} holds the pictures that these videos are made of; choose another --out"
        )
    scorer = _scorer(args)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    with Progress("covers", len(videos)) as progress:
        for video in videos:
            try:
                chosen = choose_cover(video, scorer, args.frames, args.seconds)
            except InputError as error:
                failed.append(error)
            else:
                picture, data = args.out / f"{stem_of(video)}.png", io.BytesIO()
                Image.fromarray(chosen.picture).save(data, "PNG")
                write_whole(picture, data.getvalue())
                line = {"video": str(video), "cover": str(picture), **chosen.to_json()}
                tell(json.dumps(line) if args.json else f"{picture}: frame {chosen.frame}")
            progress.tick()
    return _ended(failed, len(videos))


def run_highlights(args: argparse.Namespace) -> Exit:
    """Predictions for the videos of an index."""
    entries = read_index(args.index)
    if args.out.is_dir() or not args.out.parent.is_dir():  # known before hours of work, not after
        raise FolderError(f"{args.out}: cannot be written; expected a file in a folder that exists")
    look, used = _look(args)
    more = {KEY: size_of(used)} if args.rules == "later" else {}
    files = {entry.file for entry in entries.values()}
    with Progress("highlights", len(files)) as progress:
        failed = predict(entries, args.videos, look, args.out, progress.tick, more)
    return _ended(failed, len(files))


def run_check(args: argparse.Namespace) -> Exit:
    """Each fault on a line of stdout, what is only not recommended on stderr."""
    entries, found = read_index(args.index), {}
    for name, entry in entries.items():
        try:
            found[name] = entry.frames(args.videos)
        except InputError as error:  # then nothing may be predicted for it
            say(f"finish: {error}")
            found[name] = Frames(0, 0, 0, entry.ratio)
    faults, advice = check_predictions(args.predictions, entries, found)
    later, sizes = size_faults(args.predictions, {"first": False, "later": True}.get(args.rules))
    faults += sizes
    say(f"finish: checked by the rules of the {ROUNDS[later]}")
    for each in advice:
        say(f"finish: note: {each}")
    tell(json.dumps(faults) if args.json else "\n".join(faults or ["all right"]))
    return Exit.INPUT if faults else Exit.OK


def run_score(args: argparse.Namespace) -> Exit:
    """Each video's score and overlap, then the mean over videos."""
    scores = score_file(args.predictions, args.truth, args.videos)
    size = model_size(args.predictions)
    part = 1.0 if size is None else factor(size)
    total = 100 * part * float(np.mean([each.f for each in scores.values()]))
    overlaps = [value for each in scores.values() for value in each.overlaps]
    overlap = float(np.mean(overlaps)) if overlaps else None
    if args.json:
        videos = {name: {"f": each.f, "iou": each.overlaps} for name, each in scores.items()}
        print(json.dumps({"score": total, "factor": part, "mean_iou": overlap, "videos": videos}))
        return Exit.OK
    for name, each in scores.items():
        print(f"{name!r}: F {each.f:.4f}, IoU " + (" ".join(f"{v:.4f}" for v in each.overlaps) or "of none"))
    print("no predictions" if overlap is None else f"mean IoU {overlap:.4f} of {len(overlaps)} predictions")
    if size is not None:
        print(f"{KEY} {size:g}: times {part:.2f}")
    print(f"{total:.4f}")
    return Exit.OK


def run_cut(args: argparse.Namespace) -> Exit:
    """An mp4 for each line that has predictions."""
    entries = read_index(args.predictions)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    chosen = [entry for entry in entries.values() if entry.line.get("predictions")]
    sources = {identity(entry.video(args.videos)) for entry in entries.values()} - {None}
    for entry in chosen:
        try:
            out = args.out / file_name(entry.id)
            if identity(out) in sources:
                raise FolderError(f"{out} is a video to cut, and would be written over; choose another --out")
            frames = cut(entry.video(args.videos), entry.line["predictions"], entry.ratio, out)
            tell(json.dumps({"file": str(out), "frames": frames}) if args.json else out)
        except InputError as error:
            failed.append(error)
    return _ended(failed, len(chosen))


def _look(args: argparse.Namespace) -> tuple[Look, list[Path]]:
    """What chooses frames and boxes, and the files of the networks that it uses."""
    scorer = _scorer(args)
    own = Detector(args.detector) if args.detector else None
    used = [args.scorer or scorer.engine.path or WEIGHTS, *filter(None, [args.detector])]
    if args.select == "sparse":
        extractor = load_extractor("stfn")
        eyes = Eyes(scorer, extractor, own)
        used += [EXTRACTORS / name for name in (extractor.spec.onnx, extractor.spec.pool) if name]
        return lambda file: partial(highlights, measure(file, eyes)), used
    finds = own is not None and own.gives_boxes
    faces = None if finds else find_faces(None, say)
    gaze = Gaze(scorer, own.boxes if finds else faces, None if finds else own)
    plan, prune = Follow(float(args.sure), args.smooth), float(args.prune)
    return (
        lambda file: partial(everything, watch(file, gaze), prune=prune, plan=plan),
        [*used, *(faces.files if faces else [])],
    )


def share(text: str) -> Fraction:
    """Read an option's number for argparse: from 0 to 1."""
    with suppress(ValueError, ZeroDivisionError):
        if 0 <= Fraction(text) <= 1:
            return Fraction(text)
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text}")


def _scorer(args: argparse.Namespace) -> Scorer:
    if args.scorer:
        return own_scorer(args.scorer)
    return start_scorer(args.backend, args.precision, args.device, say)


def _ended(failed: list, count: int) -> Exit:
    """Say what failed; 3 if all did, 7 if some."""
    for reason in failed:
        say(f"finish: {reason}")
    if not failed:
        return Exit.OK
    return Exit.INPUT if len(failed) == count else Exit.SOME_FAILED


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m finish")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    cover = commands.add_parser("cover", help="the best frame of each video")
    cover.add_argument("video", type=Path, help="a video, or a folder of videos")
    cover.add_argument("--out", type=folder, required=True, help="folder for the covers")
    cover.add_argument("--frames", type=int, default=FRAMES, help=f"looked at in a video ({FRAMES})")
    cover.add_argument("--seconds", type=above_zero, default=math.inf, help="for a video (no limit)")
    _add_scorer(cover)
    cover.set_defaults(run_command=run_cover)
    high = commands.add_parser("highlights", help="frames that stand out, with boxes of a ratio")
    high.add_argument("--index", type=Path, required=True, help="JSONL: video_id, video, targetRatioWH")
    high.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    high.add_argument("--out", type=folder, required=True, help="JSONL: the same and predictions")
    high.add_argument("--select", choices=("all", "sparse"), default="all",
                      help="all frames but the worst, or those that stand out (all)")  # fmt: skip
    high.add_argument("--prune", type=share, default=PRUNE, help=f"part left out at most ({float(PRUNE):g})")
    high.add_argument("--sure", type=share, default=Fraction(str(SURE)), help=f"of a face, at least ({SURE})")
    high.add_argument("--smooth", type=above_zero, default=SMOOTH, help=f"seconds of averaging ({SMOOTH})")
    high.add_argument("--rules", choices=("first", "later"), default="first",
                      help=f"round of the contest: later ones want {KEY} on each line (first)")  # fmt: skip
    high.add_argument("--detector", type=Path, help="ONNX: what is to be seen, as docs/finish.md says")
    _add_scorer(high)
    high.set_defaults(run_command=run_highlights)
    check = commands.add_parser("check", help="all that is wrong with a prediction file; 3 if anything is")
    check.add_argument("predictions", type=Path)
    check.add_argument("--index", type=Path, required=True, help="what was asked for")
    check.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    check.add_argument("--rules", choices=("auto", "first", "later"), default="auto",
                       help=f"round of the contest (auto: a later one if a line has {KEY})")  # fmt: skip
    check.set_defaults(run_command=run_check)
    score = commands.add_parser("score", help="predictions against the truth, 0 to 100")
    score.add_argument("predictions", type=Path)
    score.add_argument("truth", type=Path, help="lines that also have frames, width and height")
    score.add_argument("--videos", type=Path, help="folder of the videos, which have these three themselves")
    score.set_defaults(run_command=run_score)
    cuts = commands.add_parser("cut", help="write the cut-downs as mp4 with sound")
    cuts.add_argument("predictions", type=Path)
    cuts.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    cuts.add_argument("--out", type=folder, required=True, help="folder for the cut-downs")
    cuts.set_defaults(run_command=run_cut)
    add_commands(commands)
    for command in (cover, check, score, cuts):
        common_arguments(command, "json")
    args = parser.parse_args(arguments)
    check_numbers(parser, args)
    return args


def _add_scorer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scorer", type=Path, help="your own, an ONNX file as docs/finish.md says")
    common_arguments(
        parser, "device",
        backend={"default": "torch", "help": "auto, or what runs the cover network"},
        precision={"default": "fp32", "help": "of the cover network"},
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
