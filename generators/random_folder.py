"""The command of a family that writes a folder in its published layout with random weights."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from engines.cli import folder


def write_random_folder(package: str, description: str) -> Path:
    """Parse the arguments, write the folder by the package's random_weights, and return its path."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    weights = commands.add_parser("random-weights", help="write such a folder")
    weights.add_argument("--out", type=folder, required=True)
    weights.add_argument("--size", choices=("full", "tiny"), default="full")
    args = parser.parse_args()
    return import_module(f"{package}.random_weights").write_folder(args.out, args.size)
