"""Failures that are not bugs: each carries the exit status of a script that it ends."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """The exit status for each kind of failure, so that a caller can react without reading text."""

    OK = 0
    BUG = 1
    USAGE = 2
    INPUT = 3
    ENVIRONMENT = 4
    SIMILARITY = 5
    TIME = 6
    SOME_FAILED = 7
    EXHAUSTED = 8
    ON_TRUST = 9
    INTERRUPTED = 130
    TERMINATED = 143


class VivaceError(Exception):
    """A foreseen failure: its text says what was wrong, what was expected and what to do."""

    exit = Exit.BUG


class UsageError(VivaceError, ValueError):
    """A request, on the command line or in a settings file, that cannot be done."""

    exit = Exit.USAGE


class InputError(VivaceError, ValueError):
    """A file of the user's data that cannot be used."""

    exit = Exit.INPUT


class EngineError(VivaceError, RuntimeError):
    """A network that cannot run here: the device, the library or the built file does not fit."""

    exit = Exit.ENVIRONMENT


class OutputError(VivaceError, RuntimeError):
    """An output that could not be written: the disk or the encoder failed. Nothing was left behind."""

    exit = Exit.EXHAUSTED


class FolderError(OutputError):
    """A folder for output that cannot be used, or is in use."""

    exit = Exit.USAGE


class DiskError(OutputError):
    """A disk that is full or gone, so that results can no longer be recorded."""


class ProgramKilled(OutputError):
    """An ffmpeg that was ended with a signal, as when memory is short; another try may succeed."""


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def exit_of(error: BaseException) -> Exit:
    """Return the exit status for an error; BUG for one that nobody foresaw."""
    if isinstance(error, VivaceError):
        return error.exit
    if isinstance(error, MemoryError):
        return Exit.EXHAUSTED
    if isinstance(error, FloatingPointError):
        return Exit.ENVIRONMENT
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return Exit.EXHAUSTED
    if isinstance(error, OSError) and error.filename is not None:
        return Exit.USAGE
    return Exit.BUG


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Write a sentence on a name that is not known; what: the kind of name, as "precision"."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"


def check_file(path: Path, kind: str) -> None:
    """Raise InputError for what is not a readable file with something in it; kind is what was expected."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a {kind} file. Give the path of one file.")
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a {kind} file. Check the path.")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        why = error.strerror
        raise InputError(f"{path}: cannot be read ({why}); expected a {kind}. Check permissions.") from error
    if not first:
        raise InputError(f"{path}: is empty (0 bytes); expected a {kind}. Copy or make the file again.")
