"""python -m bench.gpu: the same as python -m bench gpu, which imports more than a bare machine has."""

from __future__ import annotations

import argparse
import sys

from bench.gpu.command import ABOUT, add_gpu, run_gpu
from pipeline.exit_code import Exit
from pipeline.script import ending, run


def main() -> Exit:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_gpu(parser)
    args = parser.parse_args(sys.argv[1:])
    return ending("bench.gpu", lambda: run_gpu(args, print), {ValueError: Exit.USAGE})


if __name__ == "__main__":
    run(main)
