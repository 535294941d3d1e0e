"""What the scripts share: messages on stderr, data on stdout, and the exit status."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from engines.errors import Exit, VivaceError, exit_of

FORESEEN = (VivaceError, OSError, MemoryError, FloatingPointError, KeyboardInterrupt)
WORDS = {MemoryError: "out of memory: {}", OSError: "{}; make room or choose another --out"}


def above_zero(text: str) -> float:
    """Read an option's number for argparse: finite, and above 0."""
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")


def say(text: str) -> None:
    """Write a message for people to stderr."""
    if "tqdm" in sys.modules:  # there are, or were, bars on the terminal, which it puts aside
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def show(line: dict) -> None:
    """Write one line of JSON to stdout, at once."""
    print(json.dumps(line, ensure_ascii=False), flush=True)


def ending(script: str, work: Callable[[], Exit], interrupted: str = "interrupted") -> Exit:
    """Do a script's work and return its status, or report the error it raises and return that one's.

    interrupted: what to say after Ctrl-C. Errors that nobody foresaw are bugs and go through.
    """
    words = {**WORDS, KeyboardInterrupt: interrupted}
    try:
        return work()
    except FORESEEN as error:
        status = exit_of(error)
        if status is Exit.BUG:
            raise
        text = next((text for kind, text in words.items() if isinstance(error, kind)), "{}")
        say(f"{script}: {text.format(error)}")
        return status


def run(main: Callable[[], Exit], within: float | None = None) -> None:
    """Run a script's main and exit with its status; SIGTERM unwinds it, so that half-written files go.

    within: seconds after SIGTERM or Ctrl-C in which it ends at all events, unwound or not: an engine that
    computes for long in one call lets no signal through.
    """
    signal.signal(signal.SIGTERM, _terminated)
    if within is not None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        threading.Thread(target=_end_after_signal, args=(reading, within), daemon=True).start()
    sys.exit(main())


def _end_after_signal(pipe: int, seconds: float) -> None:
    """Wait for the number of a signal, then end the process after some seconds."""
    number = os.read(pipe, 1)[0]
    time.sleep(seconds)
    os._exit(128 + number)


def _terminated(*_: object) -> None:
    sys.exit(Exit.TERMINATED)
