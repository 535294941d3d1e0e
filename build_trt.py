"""Build TensorRT engines from the ONNX graphs that export_onnx.py made.

For the GPU that is here, with classic TensorRT or TensorRT-RTX; or for others with TensorRT-RTX, without one.
Engines lie beside the graphs, in engines/built/<generator> (or $VIVACE_BUILT/<generator>).

  python build_trt.py --precision fp16                          every component, for the GPU here
  python build_trt.py --precision fp16,denoise=int8 --dry-run   what would be built, and how large
  python build_trt.py --target 80,86,89,120 --shapes dynamic    for Ampere, Ada and Blackwell
"""

from __future__ import annotations

import argparse

from engines.artifact import Artifact, built_folder
from engines.cli import above_zero, common_arguments, ending, new_parser, run
from engines.errors import Exit
from engines.precision import choose_precisions, select
from engines.progress import Progress
from engines.tensorrt.build import Order, build, place_orders, plan
from engines.tensorrt.network import Settings
from engines.tensorrt.targets import resolve_targets
from generators.contract import load_generator

GIB = 1 << 30


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    words = "interrupted; finished engines are kept"
    return ending("build_trt.py", lambda: build_all(args), words)


def build_all(args: argparse.Namespace) -> Exit:
    """Build what is asked for."""
    memory = None if args.memory_limit is None else round(args.memory_limit * GIB)
    settings = Settings(args.shapes == "fixed", args.level, memory)
    generator = load_generator(args.generator)
    precisions = choose_precisions(args.precision, generator.components, to_run=False)
    chosen = select(precisions, args.component)
    where, targets = built_folder(generator.name), resolve_targets(args.target)
    for order in place_orders(generator, chosen, where, targets, settings):
        print(plan(order) if args.dry_run else told(build_shown(order)), flush=True)
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__)
    common_arguments(parser, "generator", "component", precision={"default": "fp16"})
    parser.add_argument("--target", default="gpu", help="gpu, gpu:1, or capabilities as 80,86,89,120 (gpu)")
    parser.add_argument(
        "--shapes", choices=["fixed", "dynamic"], default="fixed",
        help="fixed: the best sizes only; dynamic: all that the component allows (fixed)",
    )  # fmt: skip
    parser.add_argument("--level", type=int, default=3, help="the builder's effort, 0 to 5 (3)")
    parser.add_argument("--memory-limit", type=above_zero, metavar="GIB", help="for kernels beside weights")
    parser.add_argument("--dry-run", action="store_true", help="say what would be built, and how large")
    return parser.parse_args()


def build_shown(order: Order) -> Artifact:
    """Build, with progress on stderr."""
    with Progress(str(order.label), 100) as progress:

        def show(share: float) -> None:
            while progress.count < int(share * 100):
                progress.tick()

        return build(order, show)


def told(engine: Artifact) -> str:
    """A line on an engine that was built."""
    facts = engine.manifest["facts"]
    return f"{engine.path}: {facts['bytes'] / 1e6:.1f} MB in {facts['seconds']} s"


if __name__ == "__main__":
    run(main)
