"""Generate the videos of a data folder.

DATA holds videos/ (skeleton key-point videos) and images/ (the person); each pair becomes OUT/<id>.mp4,
with a line in OUT/manifest.jsonl.

  python infer.py                                  the bundled sample data, to out/
  python infer.py --data DATA --out OUT --json     another folder; the manifest lines on stdout
  python infer.py --generator my_model.py:MyModel  a generator of your own
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from engines.spec import EngineError
from engines.torch_engine import start_engines
from generators.contract import GeneratorError, load_generator
from pipeline.data import find_requests
from pipeline.errors import InputError, OutputError
from pipeline.exit_code import Exit
from pipeline.jobs import Run, check_writable, run_all


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    try:
        pairing = find_requests(args.data, args.seed)
        check_writable(args.out)
        generator = load_generator(args.generator)
        engines = start_engines(generator.components, generator.build, args.device)
        lines, status = run_all(pairing, Run(args.out, generator, engines, say))
    except InputError as error:
        return stop(error, Exit.INPUT)
    except (OutputError, GeneratorError) as error:
        return stop(error, Exit.USAGE)
    except EngineError as error:
        return stop(error, Exit.ENVIRONMENT)
    except KeyboardInterrupt:
        return stop("interrupted; finished videos are kept", Exit.INTERRUPTED)
    if args.json:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False))
    done = sum(line["status"] == "done" for line in lines)
    say(f"{done} of {len(lines)} videos are in {args.out}")
    return status


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sample = Path(__file__).parent / "data" / "sample"
    parser.add_argument(
        "--data", type=Path, default=sample, help="folder with videos/ and images/ (the sample)"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the videos (out/)")
    parser.add_argument("--generator", default="presenter", help="presenter, or path/to/file.py:Class")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda, cuda:1 (cpu)")
    parser.add_argument(
        "--seed", type=int, default=42, help="seed of requests that pairs.csv gives none (42)"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest lines on stdout")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, got {args.seed}")
    return args


def say(text: str) -> None:
    """A message for people."""
    print(text, file=sys.stderr, flush=True)


def stop(reason: object, status: Exit) -> Exit:
    """Say why, and give the status back."""
    say(f"infer.py: {reason}")
    return status


def terminated(*_: object) -> None:
    """SIGTERM unwinds like any exit, so that half-written files are removed."""
    sys.exit(Exit.TERMINATED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    sys.exit(main())
