"""What the scripts at the root share: their words on stderr, and how they end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from pipeline.exit_code import Exit


def say(text: str) -> None:
    """A message for people."""
    print(text, file=sys.stderr, flush=True)


def stop(script: str, reason: object, status: Exit) -> Exit:
    """Say what stopped the script, and give the status back."""
    say(f"{script}: {reason}")
    return status


def run(main: Callable[[], Exit]) -> None:
    """Run a script's main and exit with its status; SIGTERM unwinds it, so that half-written files go."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())


def _terminated(*_: object) -> None:
    sys.exit(Exit.TERMINATED)
