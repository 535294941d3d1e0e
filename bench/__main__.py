"""Measure: python -m bench backends [--ways torch:bf16 openvino:fp32 ...]."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from bench.backends import Clip, Way, compare, table
from engines.doctor import examine
from engines.precision import PrecisionError
from engines.spec import EngineError
from generators.contract import GeneratorError, load_generator
from pipeline.data import first_requests
from pipeline.errors import InputError
from pipeline.exit_code import Exit
from pipeline.request import read_opening
from pipeline.script import say, stop

ROOT = Path(__file__).resolve().parent.parent
WAYS = [
    "torch:bf16", "torch-compile:fp32", "onnxruntime:fp32", "onnxruntime:fp16",
    "onnxruntime:fp32,denoise=int8-fp32", "openvino:fp32", "openvino:fp16", "openvino:bf16",
    "openvino:bf16,denoise=int8",
]  # fmt: skip


def main() -> int:
    """Parse, measure, write."""
    args = parse()
    try:
        generator = load_generator(args.generator)
        request = first_requests(args.data, 1)[0]
        clip = Clip(*read_opening(request, generator, args.frames), request.seed)
        ways = [Way.parse(text) for text in args.ways]
        figures = compare(generator, clip, ways, args.device, args.rounds, say)
    except InputError as error:
        return stop("bench", error, Exit.INPUT)
    except (GeneratorError, PrecisionError) as error:
        return stop("bench", error, Exit.USAGE)
    except EngineError as error:
        return stop("bench", error, Exit.ENVIRONMENT)
    machine = examine()
    report = {
        "what": "python -m bench backends",
        "generator": generator.name,
        "frames": len(clip.skeletons),
        "size": list(generator.size),
        "steps": generator.grid.steps,
        "guidance": generator.guidance,
        "device": args.device,
        "rounds": args.rounds,
        "load_average": list(os.getloadavg()),
        "machine": {key: machine[key] for key in ("system", "python", "processor", "cores", "packages")},
        "ways": figures,
    }
    if args.report:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(json.dumps(report, indent=1) + "\n")
    print(table(figures))
    return Exit.OK


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("command", choices=["backends"])
    parser.add_argument("--ways", nargs="+", default=WAYS, help="backend:precision, several")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "sample", help="its first pair is used")
    parser.add_argument("--generator", default="presenter", help="presenter, or path/to/file.py:Class")
    parser.add_argument("--device", default="cpu", help="cpu, cuda (cpu)")
    parser.add_argument("--frames", type=int, default=16, help="of the clip, from its start (16)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs of every way (3)")
    parser.add_argument("--report", type=Path, help="write all figures as JSON here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
