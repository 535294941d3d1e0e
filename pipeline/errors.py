"""The failures that are not the pipeline's own fault, and the check that every input file meets first."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """The user's data cannot be used: which file, what is wrong, what was expected, what to do."""


class OutputError(RuntimeError):
    """A video could not be written: the folder, the disk or the encoder failed. Nothing was left behind."""


class DiskError(OutputError):
    """What has been made can no longer be recorded: the disk is full or gone."""


class ProgramKilled(OutputError):
    """Somebody ended ffmpeg with a signal, as systems do when memory is short; another try may succeed."""


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
