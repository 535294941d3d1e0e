"""Measure on a GPU: python -m lab.gpu --help."""

from __future__ import annotations

import argparse
import sys

from engines.cli import ending, run
from engines.errors import Exit
from lab.gpu.command import ABOUT, add_gpu, run_gpu


def main() -> Exit:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.gpu", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_gpu(parser)
    args = parser.parse_args(sys.argv[1:])
    return ending("lab.gpu", lambda: run_gpu(args, print))


if __name__ == "__main__":
    run(main)
