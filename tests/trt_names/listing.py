"""Prints the public names of an installed TensorRT: python listing.py tensorrt_rtx > rtx-1.7.txt

One line for a class, with its members, or for a function. The classic lists were read from the wheels
tensorrt-cu12-bindings 10.16 and tensorrt-cu13-bindings 11.4 (module tensorrt_bindings). They load without
NVIDIA's libraries if empty ones stand in, with the nine functions that nm -D -u tensorrt.so shows.
"""

import importlib
import inspect
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def listing(module) -> str:
    """The names as text, the version first."""
    lines = [f"# {module.__name__} {module.__version__}"]
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or inspect.ismodule(value) or name in ("attr", "value"):
            continue
        members = [each for each in dir(value) if not each.startswith("_")] if inspect.isclass(value) else []
        lines.append(f"{name}: {' '.join(members)}".rstrip(": "))
    return "\n".join(lines) + "\n"


def read_names(path: Path) -> set[str]:
    """Names of a list, members as Class.member."""
    names = set()
    for line in path.read_text().splitlines()[1:]:
        owner, _, members = line.partition(":")
        names |= {owner, *(f"{owner}.{member}" for member in members.split())}
    return names


if __name__ == "__main__":
    sys.stdout.write(listing(importlib.import_module(sys.argv[1])))
