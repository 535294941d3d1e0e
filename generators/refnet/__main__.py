"""Write a folder in Moore-AnimateAnyone's layout with random weights, to try everything on without real ones.

python -m generators.refnet random-weights --out FOLDER                of the full size, 5.5 GB
python -m generators.refnet random-weights --out FOLDER --size tiny    for tests
"""

from __future__ import annotations

import argparse

from engines.cli import folder


def main() -> None:
    """Parse the arguments, write the folder, and print its path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    weights = commands.add_parser("random-weights", help="write such a folder")
    weights.add_argument("--out", type=folder, required=True)
    weights.add_argument("--size", choices=("full", "tiny"), default="full")
    args = parser.parse_args()
    from generators.refnet.random_weights import write_folder

    print(write_folder(args.out, args.size))


if __name__ == "__main__":
    main()
