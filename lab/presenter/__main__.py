"""Train, evaluate and feed the presenter.

python -m lab.presenter train --run runs/a           both networks from nothing; again: resume
python -m lab.presenter evaluate --report runs/a.json --sheet runs/a.png
python -m lab.presenter curve --report runs/curve.json
python -m lab.presenter sample-data --out data/sample
python -m lab.presenter sample-data --out data/held-out --held-out 10
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from engines.artifact import built_folder
from engines.cli import common_arguments, ending, folder, new_parser, run
from engines.errors import Exit
from engines.load import Choice, start_engines
from generators.contract import GeneratorError
from generators.presenter.generator import WEIGHTS, Presenter
from generators.samplers import FlowMatchEuler
from pipeline.batch.dataset import SEED


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.presenter")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train the autoencoder, the denoiser, the decoder again")
    train.add_argument("--run", type=folder, required=True, help="folder for checkpoints, logs and weights")
    train.add_argument(
        "--steps",
        type=int,
        nargs=4,
        default=(3600, 2700, 8000, 1500),
        metavar=("AUTOENCODER", "PICKED", "WHOLE", "DECODER"),
        help="of the autoencoder, of the denoiser on two picked frames, on whole windows, of the decoder "
        "on what the denoiser arrives at (3600 2700 8000 1500)",
    )
    train.add_argument(
        "--batch", type=int, default=2, help="whole windows a step, six times as many picked (2)"
    )
    train.add_argument(
        "--clips", type=int, default=200, help="that are sampled for the decoder's last stage (200)"
    )
    train.add_argument("--start", type=Path, help="folder of weights to go on from")
    train.add_argument("--workers", type=int, default=1, help="processes that render data (1)")
    common_arguments(train, "device")
    train.set_defaults(run_command=run_train)
    evaluate = commands.add_parser("evaluate", help="hold generated clips against the renderer's truth")
    _add_evaluation(evaluate, clips=20)
    evaluate.add_argument(
        "--sheet", type=Path, help="PNG of references, skeletons, truths and generated frames"
    )
    evaluate.add_argument("--guidance", type=float, nargs="+", default=(1.0, Presenter.guidance))
    evaluate.set_defaults(run_command=run_evaluate)
    curve = commands.add_parser("curve", help="how far fewer steps, or another seed, are from the base run")
    _add_evaluation(curve, clips=4)
    curve.add_argument("--steps", type=int, nargs="+", default=(20, 16, 12, 8, 6, 4, 3))
    curve.set_defaults(run_command=run_curve)
    sample = commands.add_parser("sample-data", help="write the sample data folder")
    sample.add_argument("--out", type=folder, default=Path("data/sample"))
    sample.add_argument("--held-out", type=int, default=0, help="so many held-out people instead (0)")
    sample.add_argument(
        "--first", type=int, default=0, help="number of the first of these; the test bed has 0 on (0)"
    )
    sample.add_argument("--frames", type=int, default=48, help="of each of these (48)")
    sample.set_defaults(run_command=run_sample_data)
    show = commands.add_parser("show", help="a picture of what the renderer draws")
    show.add_argument("--out", type=folder, required=True, help="PNG file")
    show.add_argument("--seeds", type=int, nargs="+", default=(12, 14, 21, 27))
    show.set_defaults(run_command=run_show)
    args = parser.parse_args()
    return ending("lab.presenter", lambda: args.run_command(args) or Exit.OK)


def _add_evaluation(parser: argparse.ArgumentParser, clips: int) -> None:
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of the weights (the bundled ones)"
    )
    parser.add_argument("--clips", type=int, default=clips, help=f"held-out clips ({clips})")
    parser.add_argument("--frames", type=int, default=48, help="frames of each (48)")
    parser.add_argument("--seed", type=int, default=SEED)
    common_arguments(parser, "device", backend={"default": "torch"})
    parser.add_argument("--report", type=folder, help="JSON file for the figures; stdout without it")


def run_train(args: argparse.Namespace) -> None:
    """Four stages, each resumed, or skipped if the run has finished it or its steps are 0.

    --start gives the autoencoder, and the denoiser that the first of its stages goes on from.
    """
    import shutil

    from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE
    from lab.presenter.train import Plan, train_autoencoder, train_denoiser
    from lab.presenter.train_decoder import train_decoder

    autoencoder, picked, whole, decoder = args.steps
    machine = {"device": args.device, "workers": args.workers}
    weights = args.run / AUTOENCODER_FILE
    if args.start and not (args.start / AUTOENCODER_FILE).is_file():
        raise GeneratorError(f"--start: there are no weights in {args.start}")
    if args.start and not weights.exists():
        args.run.mkdir(parents=True, exist_ok=True)
        shutil.copy(args.start / AUTOENCODER_FILE, weights)
    if not weights.exists():
        train_autoencoder(args.run, Plan(autoencoder, 2e-3, **machine))
    best = args.start / DENOISER_FILE if args.start else None
    if picked:
        plan = Plan(picked, 1e-3, batch=6 * args.batch, frames=2, **machine)
        best = train_denoiser(args.run / "picked", plan, weights, best)
    if whole:
        plan = Plan(whole, 6e-4, batch=args.batch, frames=16, **machine)
        best = train_denoiser(args.run / "whole", plan, weights, best)
    if best is None:
        raise GeneratorError("--steps has no step for the denoiser, and there is no --start to take one from")
    print(shutil.copy(best, args.run / DENOISER_FILE))
    if decoder:
        plan = Plan(decoder, 8e-4, **machine)
        better = train_decoder(args.run / "decoder", plan, weights, best, args.clips)
        print(shutil.copy(better, weights))


def run_evaluate(args: argparse.Namespace) -> None:
    """Figures per guidance, and of the autoencoder alone; the contact sheet shows the last guidance."""
    from PIL import Image

    from bench.frame_metrics import psnr
    from lab.presenter.evaluate import contact_sheet, held_out, measure, summary

    model = _Model(args)
    rows, rebuilt, shown = {f"{g:g}": [] for g in args.guidance}, [], []
    items = [held_out(n, args.frames) for n in range(args.clips)]
    for n, item in enumerate(items):
        rebuilt.append({"psnr": psnr(model.rebuild(item.truth).astype(np.float32) - item.truth)})
        for guidance in args.guidance:
            frames = model.generate(item.skeletons, item.reference, args.seed, guidance=guidance)
            rows[f"{guidance:g}"].append(measure(item, frames))
        shown.append(frames)
        print(
            f"clip {n + 1}/{args.clips}: "
            + ", ".join(f"{r[-1]['psnr_determined']:.2f} dB at guidance {g}" for g, r in rows.items()),
            file=sys.stderr,
            flush=True,
        )
    if args.sheet:
        Image.fromarray(contact_sheet(items[:6], shown[:6])).save(args.sheet, optimize=True)
    _report(
        args,
        {
            "clips": args.clips,
            "frames": args.frames,
            "seed": args.seed,
            "autoencoder": summary(rebuilt),
            "guidance": {g: {"mean": summary(r), "clips": r} for g, r in rows.items()},
        },
    )


def run_curve(args: argparse.Namespace) -> None:
    """PSNR to the base run, all pixels, of runs with fewer steps and of a run with another seed."""
    from bench.frame_metrics import psnr
    from lab.presenter.evaluate import held_out

    model, distances = _Model(args), {}
    for n in range(args.clips):
        item = held_out(n, args.frames)
        base = model.generate(item.skeletons, item.reference, args.seed).astype(np.float32)
        for steps in args.steps:
            frames = model.generate(item.skeletons, item.reference, args.seed, steps=steps)
            distances.setdefault(str(steps), []).append(psnr(frames - base))
        other = model.generate(item.skeletons, item.reference, args.seed + 1)
        distances.setdefault("another seed", []).append(psnr(other - base))
        print(f"clip {n + 1}/{args.clips} done", file=sys.stderr, flush=True)
    _report(
        args,
        {
            "clips": args.clips,
            "frames": args.frames,
            "base_steps": Presenter.scheduler.steps,
            "guidance": Presenter.guidance,
            "psnr_to_base": {k: round(float(np.mean(v)), 2) for k, v in distances.items()},
        },
    )


def run_sample_data(args: argparse.Namespace) -> None:
    """videos/ and images/; outputs/ comes from infer.py."""
    from lab.presenter.sample_data import SAMPLES, held_out_samples, write_clip, write_sample_data

    samples = held_out_samples(args.held_out, args.frames, args.first) if args.held_out else SAMPLES
    write_sample_data(args.out, write_clip, samples)
    print(f"now: python infer.py --data {args.out} --out {args.out / 'outputs'}")


def run_show(args: argparse.Namespace) -> None:
    """The renderer's picture."""
    from PIL import Image

    from lab.presenter.evaluate import renderer_sheet

    Image.fromarray(renderer_sheet(args.seeds)).save(args.out, optimize=True)


class _Model:
    """The presenter on torch engines, from arrays to arrays."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.presenter = Presenter(args.weights)
        precisions = dict.fromkeys(self.presenter.components, "fp32")
        choice = Choice(args.backend, precisions, args.device, built_folder(self.presenter.name))
        _, self.engines = start_engines(self.presenter, choice, print)

    def generate(
        self,
        skeletons: np.ndarray,
        reference: np.ndarray,
        seed: int,
        *,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> np.ndarray:
        """Frames (F, H, W, 3) uint8; guidance and steps other than the base model's on request."""
        from pipeline.sampler import generate

        presenter = self.presenter
        presenter.guidance = Presenter.guidance if guidance is None else guidance
        presenter.scheduler = (
            FlowMatchEuler(steps, Presenter.scheduler.shift) if steps else Presenter.scheduler
        )
        return generate(presenter, self.engines, skeletons, reference, seed)

    def rebuild(self, frames: np.ndarray) -> np.ndarray:
        """Frames through the autoencoder and back."""
        parts = np.split(frames, range(self.presenter.chunk, len(frames), self.presenter.chunk))
        return np.concatenate(
            [
                self.engines["decode"](latents=self.engines["encode"](pixels=part)["latents"])["pixels"]
                for part in parts
            ]
        )


def _report(args: argparse.Namespace, figures: dict) -> None:
    text = json.dumps(figures, indent=1)
    if args.report:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    run(main)
