"""What this machine can run, which recipe to take, and which command is next.

python -m engines doctor [--data DATA] [--json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from engines.advice import Step, next_steps, recipe_for
from engines.cli import SAMPLE, common_arguments, ending, new_parser, printable, run
from engines.doctor import DEVICES, examine
from engines.errors import Exit


def main() -> Exit:
    """Parse, call, print."""
    parser = new_parser(__doc__, "python -m engines")
    parser.add_argument("command", choices=["doctor"])
    common_arguments(parser, "json", data={"default": SAMPLE, "help": "your data folder"})
    args = parser.parse_args()
    return ending("doctor", lambda: tell(args))


def tell(args: argparse.Namespace) -> Exit:
    """Print the report on this machine, as text or as JSON."""
    found = examine()
    steps = next_steps(found, args.data)
    if args.json:
        recipe = asdict(recipe_for(found["backends"]))
        print(json.dumps({**found, "recipe": recipe, "next": [asdict(step) for step in steps]}, indent=1))
        return Exit.OK
    print(f"{found['system']}, Python {found['python']}, {found['processor']}, {found['cores']} cores")
    print("packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    for device in DEVICES:
        for backend, reasons in found["backends"].items():
            reason = reasons[device]
            print(f"{device:5} {backend:21} {'works' if reason is None else f'no: {reason}'}")
    print(printable(advice(steps)))
    return Exit.OK


def advice(steps: list[Step]) -> str:
    """Return the commands as lines, the next first, each under its reason."""
    lines = ["", "What now?"]
    for number, step in enumerate(steps, 1):
        lines += [f"{number}. {step.why}", f"   {step.command}"]
    return "\n".join([*lines, "A model of your own: docs/wrapping.md; a submission: docs/submit.md"])


if __name__ == "__main__":
    run(main)
