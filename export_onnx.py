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
from pathlib import Path

from engines.artifact import built_folder
from engines.cli import ending, run, say
from engines.errors import Exit
from engines.onnx.export import OPSET, Target
from engines.precision import choose_precisions
from generators.contract import load_generator
from generators.weight_files import licences
from optimize.export_all import export_all, select


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
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sample = Path(__file__).parent / "data" / "sample"
    parser.add_argument("--generator", default="presenter", help="presenter, or path/to/file.py:Class")
    parser.add_argument("--component", help="one or some, as encode,decode (all)")
    parser.add_argument(
        "--precision", default="fp32", help="one for all, then exceptions: fp16,denoise=int8 (fp32)"
    )
    parser.add_argument("--out", type=Path, help="folder for the graphs (engines/built/<generator>)")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"version of ONNX's operators ({OPSET})")
    parser.add_argument(
        "--data", type=Path, default=sample, help="folder whose runs calibrate precisions (the sample)"
    )
    parser.add_argument("--force", action="store_true", help="build again what is there already")
    parser.add_argument("--json", action="store_true", help="print what was measured on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
