"""Install what a bare machine lacks from the wheels that were brought, beside what is installed there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.gpu.wheels import collect
from engines.spec import EngineError

INSTALLED = "installed.json"


def install(brought: Path, folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Install the wheels that are whole by now into FOLDER/site; by wheel "installed", or what it lacks.

    A wheel that was installed before is left alone. EngineError: a part is damaged, or pip refuses a wheel.
    """
    wheels, site = folder / "wheels", folder / "site"
    known = folder / INSTALLED
    before = set(json.loads(known.read_text())) if known.is_file() else set()
    lacking = collect(brought, wheels)
    whole = [name for name, missing in lacking.items() if not missing]
    new = [name for name in whole if name not in before]
    for name in new:
        _install(wheels / name, site)
        say(f"installed {name}")
    known.write_text(json.dumps(sorted(before.union(new))) + "\n")
    return {name: f"lacks {missing}" if missing else "installed" for name, missing in lacking.items()}


def _install(wheel: Path, site: Path) -> None:
    """Without what it needs, which is there or is another wheel."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--upgrade",
        "--target",
        str(site),
        str(wheel),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise EngineError(f"pip refuses {wheel.name}: {lines[-1] if lines else 'it gives no reason'}")
