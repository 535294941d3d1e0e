"""Export the components of a generator as ONNX graphs, checked, each in the precision of your choice.

An fp32 graph is held against torch, one of another precision against the fp32 graph, on inputs recorded from
runs of DATA. Beside each lies a manifest of what it was built from; what still fits it is kept.

  python export_onnx.py                                             every component in fp32
  python export_onnx.py --precision fp16,denoise=int8               for GPUs
  python export_onnx.py --precision int8-fp32 --component denoise   for processors
"""

from __future__ import annotations

import argparse
import json

from engines.artifact import built_folder
from engines.cli import SAMPLE, common_arguments, ending, new_parser, run, say
from engines.errors import Exit
from engines.onnx.attention_form import DECOMPOSED, FUSED
from engines.onnx.export import Target
from engines.precision import choose_precisions, select
from generators.contract import load_generator
from generators.weight_files import licences
from optimize.export_all import export_all


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    words = "interrupted; finished graphs are kept"
    return ending("export_onnx.py", lambda: export(args), words)


def export(args: argparse.Namespace) -> Exit:
    """Export what is asked for."""
    generator = load_generator(args.generator)
    for line in licences(generator.fingerprint_files):
        say(line)
    precisions = choose_precisions(args.precision, generator.components, to_run=False)
    chosen = select(precisions, args.component)
    target = Target(args.out or built_folder(generator.name), say, args.force)
    artifacts = export_all(generator, chosen, args.data, target, args.opset)
    for artifact in artifacts:
        about = {"file": str(artifact.path), **artifact.manifest["facts"]}
        print(json.dumps(about) if args.json else artifact.path)
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__)
    common_arguments(
        parser, "generator", "component", "force", "json",
        precision={"default": "fp32"},
        out={"help": "folder for the graphs (engines/built/<generator>)"},
        data={"default": SAMPLE, "help": "folder whose runs calibrate precisions"},
    )  # fmt: skip
    parser.add_argument(
        "--opset", type=int,
        help=f"version of ONNX's operators ({DECOMPOSED}; {FUSED}, with Attention nodes, for fp16 and bf16; "
        f"older TensorRT than 10.14 needs {DECOMPOSED})",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
