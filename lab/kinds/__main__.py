"""How near plans come to the base run on models of several kinds, plain and fitted, as a table.

python -m lab.presenter sample-data --out people --held-out 5 --frames 16
python -m lab.kinds --data people --tuning 3 --work out/kinds

The first videos of DATA are fitted to, the others are fresh. Figures are dB of latents, least of the videos.
"""

from __future__ import annotations

import argparse

from engines.cli import common_arguments, ending, folder, new_parser, run, say
from engines.errors import Exit
from lab.kinds.table import HEAD, KINDS, halved, prepared, rows_of
from pipeline.batch.dataset import find_requests


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m lab.kinds")
    common_arguments(parser, data={"required": True}, backend={"default": "torch"})
    parser.add_argument("--work", type=folder, required=True, help="folder for base runs, which are kept")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS], help="of models (all)")
    parser.add_argument("--tuning", type=int, default=3, help="videos that are fitted to (3)")
    parser.add_argument("--plans", type=int, default=8, help="of the front, beside five patterns (8)")
    parser.add_argument("--halved", action="store_true", help="64x96 pixels, windows of 8: quicker")
    args = parser.parse_args()
    return ending("lab.kinds", lambda: table(args))


def table(args: argparse.Namespace) -> Exit:
    """Print a row for each plan of each kind."""
    requests = find_requests(args.data).requests
    print(HEAD)
    for name in args.kinds:
        generator = (halved(KINDS[name]) if args.halved else KINDS[name])()
        cases, grams = prepared(generator, requests, args.backend, args.work, say)
        for row in rows_of(name, cases, grams, args.tuning, args.plans):
            print(row, flush=True)
    return Exit.OK


if __name__ == "__main__":
    run(main)
