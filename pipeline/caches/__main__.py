"""Techniques that a recipe can name under [technique].

python -m pipeline.caches list                          names, sources, and the values that a search tries
python -m pipeline.caches calibrate --data DATA         base runs for teacache and magcache, once a model
"""

from __future__ import annotations

import argparse

from engines.cli import SAMPLE, check_numbers, common_arguments, ending, new_parser, run, say
from engines.errors import Exit
from generators.contract import load_generator
from pipeline.batch.dataset import first_requests
from pipeline.caches.base_runs import calibrate
from pipeline.caches.calibration import save_calibration
from pipeline.caches.technique import TECHNIQUES, TechniqueError, load_technique


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m pipeline.caches")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listed = commands.add_parser("list", help="names, sources, values that a search tries")
    fitted = commands.add_parser("calibrate", help="base runs for teacache and magcache")
    for command, function in ((listed, run_list), (fitted, run_calibrate)):
        common_arguments(command, "generator")
        command.set_defaults(run_command=function)
    common_arguments(fitted, "device", data={"default": SAMPLE})
    fitted.add_argument("--videos", type=int, default=2, help="how many of DATA (2)")
    args = parser.parse_args()
    check_numbers(parser, args)
    return ending("pipeline.caches", lambda: args.run_command(args))


def run_list(args: argparse.Namespace) -> Exit:
    """Print one line a technique, and one a setting."""
    generator = load_generator(args.generator)
    for name in TECHNIQUES:
        technique = load_technique(name)
        print(f"{name}: {technique.source}")
        try:
            space = technique.search_space(generator)
        except TechniqueError as error:
            print(f"  not with this generator: {str(error).partition(': ')[2]}")
            continue
        for setting, values in space.items():
            print(f"  {setting}: {', '.join(map(str, values))}")
    return Exit.OK


def run_calibrate(args: argparse.Namespace) -> Exit:
    """Measure base runs, and keep what was found beside the generator's artifacts."""
    generator = load_generator(args.generator)
    requests = first_requests(args.data, args.videos)
    calibration = calibrate(generator, requests, args.device, say)
    print(save_calibration(calibration, generator, [request.id for request in requests]))
    return Exit.OK


if __name__ == "__main__":
    run(main)
