"""What this machine can run: python -m engines doctor [--json]."""

from __future__ import annotations

import argparse
import json
import sys

from engines.doctor import DEVICES, examine


def main() -> int:
    """Print the report on this machine, as text or as JSON."""
    parser = argparse.ArgumentParser(prog="python -m engines", description=__doc__)
    parser.add_argument("command", choices=["doctor"])
    parser.add_argument("--json", action="store_true", help="the same as JSON on stdout")
    args = parser.parse_args()
    found = examine()
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"{found['system']}, Python {found['python']}, {found['processor']}, {found['cores']} cores")
    print("packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    for device in DEVICES:
        for backend, reasons in found["backends"].items():
            reason = reasons[device]
            print(f"{device:5} {backend:21} {'works' if reason is None else f'no: {reason}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
