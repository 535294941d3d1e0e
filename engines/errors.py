"""Failures that are not bugs: each carries the exit status of a script that it ends."""

from __future__ import annotations

import difflib
import errno
import stat
import struct
import traceback
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from subprocess import SubprocessError


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


# What a user's code may raise; it is told with its line, and is no bug of ours.
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
ABSENT = {errno.ENOENT, errno.ENOTDIR}
SHORT = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}  # the last: `ulimit -f`


# What decoders of files raise: Pillow's, ffmpeg's readers, NumPy's; all but MemoryError of Exception's kinds.
FILE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, OSError,
    RuntimeError, SubprocessError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


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


def not_a_file(path: Path) -> str | None:
    """Return what a path is instead of a regular file, as "is a folder"; None for a regular file.

    Nothing but regular files is opened: a pipe would be waited for without end, a device may be anything.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in ABSENT:
            return f"cannot be read ({error.strerror})"
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except ValueError:
        return "does not exist, no file's name has such characters"
    if stat.S_ISREG(mode):
        return None
    return "is a folder" if stat.S_ISDIR(mode) else "is no regular file (a pipe, socket or device)"


def check_file(path: Path, kind: str) -> None:
    """Raise InputError for what is not a readable file with something in it; kind is what was expected."""
    what = not_a_file(path)
    if what == "does not exist":
        raise InputError(f"{path}: no such file; expected a {kind} file. Check the path.")
    if what:
        raise InputError(f"{path}: {what}; expected a {kind} file. Give the path of one file.")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        why = error.strerror
        raise InputError(f"{path}: cannot be read ({why}); expected a {kind}. Check permissions.") from error
    if not first:
        raise InputError(f"{path}: is empty (0 bytes); expected a {kind}. Copy or make the file again.")


def entries_of(folder: Path, expected: str) -> list[Path]:
    """List a folder of the user's, in order of names. InputError: it is not there, or cannot be listed.

    expected: the end of the sentence where there is no such folder, as "it should hold videos".
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        if error.errno in SHORT:
            raise  # it is the machine that has too little
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{folder} does not exist; {expected}") from error
        if isinstance(error, NotADirectoryError):
            raise InputError(f"{folder} is no folder; {expected}") from error
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check permissions") from error


def describe_error(error: BaseException) -> str:
    """Return an error's class and text, and the file and line that raised it or asked a library for it."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((each for each in reversed(frames) if "site-packages" not in each.filename), frames[-1])
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a decoder raises at a user's file in the with block into an InputError of that file.

    Decoders meet bytes that nobody foresaw: of a damaged picture Pillow alone raises RuntimeError,
    NotImplementedError, struct.error and more. A file that does so must not end a run.
    """
    try:
        yield
    except (VivaceError, MemoryError):
        raise
    except FILE_ERRORS as error:
        if isinstance(error, OSError) and (error.errno in SHORT or error.filename not in (None, str(path))):
            raise  # it is the machine that has too little, or another file
        if isinstance(error, PermissionError):
            why = error.strerror or error
            raise InputError(f"{path}: cannot be read ({why}). Check permissions.") from error
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: cannot be read ({why}). Make the file again.") from error
