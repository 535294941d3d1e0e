"""Refuse an output folder in which a run's videos would take the place of others' files, inputs above all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engines.errors import FolderError
from pipeline.batch.dataset import OUTPUTS, VIDEO_SUFFIXES, Request, stem_of
from pipeline.batch.run_folder import MANIFEST

INPUTS = ("videos", "images")  # subfolders of a data folder with what videos are made of


def check_ours(out: Path, data: Path, requests: Iterable[Request], restart: bool) -> None:
    """Raise FolderError if a file that no run made would be lost in out, or become one of two of a name.

    An input is never written over, and no video is put beside inputs, where the next run would take it for
    one. Videos of another's, such as a contest's base demos in its data folder, are replaced with restart;
    one of another ending would stay beside ours, which in data's outputs nobody could judge by.
    """
    try:
        if not out.is_dir():
            return
        if any(_is_same(out, data / name) for name in INPUTS):
            raise FolderError(
                f"{out} holds this run's inputs, and videos made there would be lost among them; choose "
                "another --out"
            )
        places = {out / f"{request.id}.mp4": request for request in requests}
        _check_inputs(filter(Path.exists, places), places.values())
        _check_others(out, places, restart, restart and not _is_same(out, data / OUTPUTS))
    except OSError as error:
        raise FolderError(
            f"{out}: cannot be looked into ({error.strerror}); check permissions, or choose another --out"
        ) from error


def _check_inputs(there: Iterable[Path], requests: Iterable[Request]) -> None:
    """Raise FolderError if one of the files that are there is an input of a request, by whatever path."""
    files = {found: place for place in there if (found := identity(place))}
    for request in requests if files else ():
        for path in (request.video, request.image, *request.pictures.values()):
            if place := files.get(identity(path)):
                raise FolderError(f"{place} is an input, and would be written over; choose another --out")


def _check_others(out: Path, places: Iterable[Path], replaces: bool, keeps: bool) -> None:
    """Raise FolderError if out has others' videos of these places, or of their names with other endings.

    replaces: the former may be replaced. keeps: the latter may stay.
    """
    ours = replaces or (out / MANIFEST).exists()
    stems = {stem_of(place): place for place in places}
    lost, twins = [], []
    for path in sorted(out.iterdir()):
        place = stems.get(stem_of(path))
        if place is None or path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith("."):
            continue
        # Where neither case nor how accents are stored counts, a file of another name is the same.
        (lost if path == place or _is_same(path, place) else twins).append(path.name)
    if lost and not ours:
        raise FolderError(
            f"{out} has {_shown(lost)}, which no run of infer.py made, as it has no {MANIFEST}; choose "
            "another --out, or replace them with --restart"
        )
    if twins and not keeps:
        raise FolderError(
            f"{out} has {_shown(twins)}, beside which there would be a second video of the same name; choose "
            "another --out, or move it"
        )


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what all paths of a file share; None: there is no such file. OSError: it cannot be told."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
