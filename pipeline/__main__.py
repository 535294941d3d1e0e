"""Check whether a generator keeps the contract; print what is wrong and how to fix it.

python -m pipeline check NAME|path.py:Class [--export] [--json]

One window is run on random inputs; the networks run as torch modules on the CPU, and are traced for export.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from engines.cli import GENERATORS, run, say, tell
from engines.errors import Exit
from generators.contract import GeneratorError, load_generator
from generators.weight_files import licences
from pipeline.component_check import Finding


def main() -> Exit:
    """Parse the arguments, check the generator, print the findings; Exit.USAGE if there are any."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["check"])
    parser.add_argument("generator", help=GENERATORS)
    parser.add_argument(
        "--export", action="store_true", help="export every component to ONNX and run its graph, too"
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON on stdout")
    args = parser.parse_args()
    found = check(args.generator, args.export)
    wrong = sum(map(len, found.values()))
    if args.json:
        checks = {name: [asdict(finding) for finding in findings] for name, findings in found.items()}
        tell(json.dumps({"generator": args.generator, "ok": not wrong, "checks": checks}, indent=1))
        return Exit.USAGE if wrong else Exit.OK
    for name, findings in found.items():
        tell(f"{'WRONG' if findings else 'ok':6}{name}")
        for finding in findings:
            tell(f"      {finding}".replace("\n", "\n      "))
    tell(f"{args.generator}: {f'{wrong} to mend' if wrong else 'keeps the contract'}")
    return Exit.USAGE if wrong else Exit.OK


def check(name: str, export: bool) -> dict[str, list[Finding]]:
    """Return the findings by the name of each check; for a generator that cannot be loaded, why under "load".

    export: also export every component to ONNX. Loading must not import torch; that is a finding too.
    """
    before = "torch" in sys.modules
    try:
        generator = load_generator(name)
    except GeneratorError as error:
        return {
            "load": [Finding("load", str(error), "correct this first; the rest is checked of what loads")]
        }
    late = []
    if "torch" in sys.modules and not before:
        mend = "import it inside build() and what that calls; other engines never need it"
        late = [Finding("load", "loading the file imports torch, seconds that every run pays for", mend)]
    from pipeline.check_generator import check_generator

    with tempfile.TemporaryDirectory() as folder:
        found = check_generator(generator, Path(folder) if export else None, trace=True)
    for line in licences(generator.fingerprint_files) if not found["settings"] else ():
        say(line)
    return {"load": late, **found}


if __name__ == "__main__":
    run(main)
