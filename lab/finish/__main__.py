"""Make the cover network that finish runs.

python -m lab.finish export --precision fp16,int8     its graphs, checked
python -m lab.finish faces --weights FILE.whl         the detector of faces, as graphs
python -m lab.finish train --run runs/cover           its weights from nothing; again: resume
python -m lab.finish real --footage FOLDER --out runs/real   the figures on real footage
python -m lab.finish evaluate --out runs/finish       all figures, on held-out rendered videos
python -m lab.finish compare --footage FOLDER --out runs/ways   both modes and plain rules, on both kinds
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from engines.artifact import built_folder
from engines.cli import above_zero, check_numbers, common_arguments, ending, folder, new_parser, run, say
from engines.errors import Exit
from engines.onnx.export import Target, export_onnx
from engines.precision import PRECISIONS, choose_precisions
from finish.faces import find_faces
from finish.mtcnn import Mtcnn
from finish.scorer import WEIGHTS, Cover, start_scorer
from finish.watching import Gaze
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


def run_faces(args: argparse.Namespace) -> Exit:
    """Graphs of the detector of faces, from the weights that facenet-pytorch carries."""
    model = Mtcnn(args.weights)
    target = Target(args.out or built_folder(model.name), say, args.force)
    for name in model.components:
        path = export_onnx(model, name, target).path
        print(json.dumps({"file": str(path)}) if args.json else path)
    return Exit.OK


def run_train(args: argparse.Namespace) -> Exit:
    """The cover network's weights."""
    from lab.finish.pictures import read_photos
    from lab.finish.training import train
    from lab.presenter.train import Plan

    photos = read_photos(args.photos) if args.photos else ()
    plan = Plan(args.steps, args.rate, warm_up=min(50, args.steps // 5), save_every=100)
    print(train(args.run, plan, args.out, start=args.start, photos=photos))
    return Exit.OK


def run_evaluate(args: argparse.Namespace) -> Exit:
    """Figures as JSON on stdout and in --out, beside the pictures of docs/finish.md."""
    from lab.finish.evaluate import evaluate

    print(json.dumps(evaluate(args.out, args.videos, args.clips, say), indent=1))
    return Exit.OK


def run_compare(args: argparse.Namespace) -> Exit:
    """A Markdown table on stdout; compare.json, all figures on real footage and pictures in --out."""
    from lab.finish.evaluate import stand_out
    from lab.finish.real import evaluate_real
    from lab.finish.ways import table

    args.out.mkdir(parents=True, exist_ok=True)
    beds = {}
    if args.footage:
        found = evaluate_real(args.footage, args.out, args.reels, args.seconds, say)
        beds = {f"real, {bed}": figures["score"] for bed, figures in found.items()}
    gaze = Gaze(start_scorer("torch", "fp32", "cpu", say), find_faces(None, say))
    rendered = stand_out(gaze, args.clips, args.out, say)
    beds["rendered, held out"] = {name: found for name, found in rendered.items() if ":" in name}
    (args.out / "compare.json").write_text(json.dumps(beds, indent=1) + "\n", encoding="utf-8")
    print(table(beds))
    return Exit.OK


def run_real(args: argparse.Namespace) -> Exit:
    """Figures as JSON on stdout and in --out."""
    from lab.finish.answers import known_answers
    from lab.finish.evaluate import order
    from lab.finish.long import long_run
    from lab.finish.real import evaluate_real, order_real

    if args.footage and args.long:
        print(json.dumps(long_run(args.footage, args.out, args.long, say), indent=1))
    elif args.footage:
        print(json.dumps(evaluate_real(args.footage, args.out, args.reels, args.seconds, say), indent=1))
    if args.photos:
        scorer = start_scorer("torch", "fp32", "cpu", say, args.weights)
        both = {"real": order_real(args.photos, scorer), "rendered": order(scorer, say)}
        print(json.dumps(both, indent=1))
    if args.answers:
        print(json.dumps(known_answers(args.answers, say), indent=1))
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
    faces = commands.add_parser("faces", help="the detector of faces as ONNX graphs")
    faces.add_argument("--weights", type=Path, help="a wheel of facenet-pytorch (the installed package)")
    common_arguments(faces, "force", "json", out={"help": "folder (engines/built/mtcnn)"})
    faces.set_defaults(run_command=run_faces)
    train = commands.add_parser("train", help="the cover network; again: go on")
    train.add_argument("--run", type=folder, required=True, help="folder for checkpoints and the log")
    train.add_argument("--steps", type=int, default=2000, help="of forty pictures each (2000)")
    train.add_argument("--rate", type=float, default=3e-3, help="of learning, at first (0.003)")
    train.add_argument("--start", type=Path, help="weights to begin from")
    train.add_argument("--photos", type=Path, help="folder of pictures and videos that half are parts of")
    train.add_argument("--out", type=folder, default=WEIGHTS, help="file for the weights (the bundled one)")
    train.set_defaults(run_command=run_train)
    judge = commands.add_parser("evaluate", help="figures and pictures on held-out rendered videos")
    judge.add_argument("--out", type=folder, required=True, help="folder")
    judge.add_argument("--videos", type=int, default=50, help="for covers (50)")
    judge.add_argument("--clips", type=int, default=30, help="for highlights, a minute each (30)")
    judge.set_defaults(run_command=run_evaluate)
    real = commands.add_parser("real", help="figures on real footage, as lab/finish/footage.json names it")
    real.add_argument("--photos", type=Path, help="folder of pictures to degrade, for the cover network")
    real.add_argument("--weights", type=Path, default=WEIGHTS, help="of the cover network (the bundled ones)")
    real.add_argument(
        "--long", type=above_zero, help="minutes of a video of the footage, for speed and memory"
    )
    real.add_argument("--answers", type=int, help="rendered people to gesture and dress, for heads, as 30")
    real.set_defaults(run_command=run_real)
    ways = commands.add_parser("compare", help="both modes and plain rules, on real and rendered videos")
    ways.add_argument("--clips", type=int, default=30, help="rendered ones, a minute each (30)")
    ways.set_defaults(run_command=run_compare)
    for each in (real, ways):
        each.add_argument("--footage", type=Path, help="folder of the files that footage.json names")
        each.add_argument("--out", type=folder, required=True, help="folder")
        each.add_argument("--reels", type=int, default=3, help="videos made of the footage, of each bed (3)")
        each.add_argument("--seconds", type=above_zero, default=75, help="of each, and a few more (75)")
    args = parser.parse_args()
    check_numbers(parser, args)
    return args


if __name__ == "__main__":
    run(main)
