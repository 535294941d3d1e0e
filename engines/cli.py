"""What the scripts share: options, messages on stderr, data on stdout, and the exit status."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engines.errors import Exit, VivaceError, exit_of

FORESEEN = (VivaceError, OSError, MemoryError, FloatingPointError, KeyboardInterrupt)
WORDS = {
    MemoryError: "out of memory: {}",
    PermissionError: "{}; check its permissions, or choose another --out",
    OSError: "{}; make room or choose another --out",
}
# C0 and C1 but for tab and line feed, DEL, and what turns the direction of writing.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"  # the bundled data folder


def folder(text: str) -> Path:
    """Read an option's folder for argparse: an empty text, which would be the working folder, is none."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("is empty; give a folder, or . for the working folder")
    return Path(text)


def above_zero(text: str) -> float:
    """Read an option's number for argparse: finite, and above 0."""
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")


# The kinds of generators/contract.py, which this room cannot ask.
GENERATORS = (
    "presenter, path/to/file.py:Class, or a kind and its folder of weights: mimicmotion=FOLDER, "
    "refnet=FOLDER, wan-animate=FOLDER, wan-fun-control=FOLDER, wan-unianimate=FOLDER"
)
COMMON = {
    "backend": {"help": "what runs the networks"},
    "component": {"help": "one or some, as encode,decode (all)"},
    "data": {"type": folder, "help": "folder with videos/ and images/"},
    "device": {"default": "cpu", "help": "cpu, cuda, cuda:1"},
    "extractors": {"nargs": "+", "default": ["stfn"], "help": "names or JSON files; the least counts"},
    "force": {"action": "store_true", "help": "build again what is there already"},
    "generator": {"default": "presenter", "help": GENERATORS},
    "json": {"action": "store_true", "help": "print the result as JSON on stdout"},
    "lora": {
        "action": "append",
        "metavar": "FILE[:SCALE]",
        "help": "low-rank adapter to merge into the generator's weights; may be given again",
    },
    "lossless": {"action": "store_true", "help": "videos keep every pixel; those compared must, too"},
    "out": {"type": folder},
    "precision": {"help": "one for all, then exceptions: fp16,denoise=int8"},
    "seed": {"type": int, "help": "seed of requests that pairs.csv gives none"},
    "time-threshold": {"type": above_zero, "metavar": "S", "help": "seconds a video may take"},
}


LORA = ",lora="  # before each adapter behind a generator's name


class Parser(argparse.ArgumentParser):
    """A parser that puts adapters of --lora behind the generator's name, where all that load it find them."""

    def parse_args(self, *args: object, **more: object) -> argparse.Namespace:
        """Parse a command line."""
        found = super().parse_args(*args, **more)
        for lora in getattr(found, "lora", None) or ():
            if found.generator is None:
                self.error("--lora goes with --generator, whose weights it changes")
            found.generator += f"{LORA}{lora}"
        return found


def new_parser(about: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help begins with a module's docstring, lines kept. prog: without it, the file."""
    return Parser(prog=prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)


def common_arguments(parser: argparse.ArgumentParser, *names: str, **changed: dict) -> None:
    """Add options of COMMON by name; with the generator its adapters.

    changed: by name, what is otherwise in this script, as add_argument takes it. Help ends with the default.
    """
    names = (*names, *changed)
    for name in (*names, *["lora"] * ("generator" in names)):
        settings = {**COMMON[name], **changed.get(name, {})}
        default = settings.get("default")
        if default is not None:
            shown = " ".join(map(str, default if isinstance(default, list) else [default]))
            settings["help"] = f"{settings['help']} ({shown.removeprefix(f'{ROOT}/')})"
        parser.add_argument(f"--{name}", **settings)


def check_numbers(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with argparse's error if a number among the arguments is not above 0."""
    for name, value in vars(args).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
            parser.error(f"--{name} must be above 0, got {value:g}")


def devices_of(parser: argparse.ArgumentParser, text: str) -> list[str]:
    """Split the names of devices at commas; an empty one is an error of the command line."""
    devices = text.split(",")
    if not all(devices):
        parser.error(f"--device {text}: a name is missing beside a comma")
    return devices


def printable(text: str) -> str:
    """Write control characters as \\u001b, so that no name of a file can command a terminal; lines stay."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str) -> None:
    """Print a message for people on stderr."""
    text = printable(text)
    with suppress(OSError, ValueError):  # nobody reads stderr any more, which is no reason to end a run
        if "tqdm" in sys.modules:  # there are, or were, bars on the terminal, which it puts aside
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def tell(text: object) -> None:
    """Print a result for people on stdout, at once."""
    print(printable(str(text)), flush=True)


def show(line: dict) -> None:
    """Print a line of data on stdout, at once. BrokenPipeError: nobody reads it any more.

    A file name that is no text has bytes that UTF-8 cannot hold; \\udcff is still valid JSON.
    """
    text = printable(json.dumps(line, ensure_ascii=False))
    print(text.encode("utf-8", "backslashreplace").decode(), flush=True)


def ending(script: str, work: Callable[[], Exit], interrupted: str = "interrupted") -> Exit:
    """Do the work of a script; return its status, or that of an error it raises, after saying the error.

    interrupted: what to say after Ctrl-C. Errors that nobody foresaw are bugs and go through.
    """
    words = {**WORDS, KeyboardInterrupt: interrupted}
    try:
        return work()
    except FORESEEN as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return Exit.INTERRUPTED  # quietly: "| head" has read what it wanted
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
    _open_standard_files()
    signal.signal(signal.SIGTERM, _terminated)
    if within is not None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        threading.Thread(target=_end_after_signal, args=(reading, within), daemon=True).start()
    sys.exit(main())


def _stdout_is_closed() -> bool:
    """Tell whether stdout's reader has ended; if so, have what Python still flushes there go nowhere."""
    poll = select.poll()
    poll.register(1, 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
    return closed


def _open_standard_files() -> None:
    """Open those of stdin, stdout and stderr that are closed, lest the next files take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name that is no text ends no run


def _end_after_signal(pipe: int, seconds: float) -> None:
    """Wait for the number of a signal, then end the process after some seconds."""
    number = os.read(pipe, 1)[0]
    time.sleep(seconds)
    os._exit(128 + number)


def _terminated(*_: object) -> None:
    sys.exit(Exit.TERMINATED)
