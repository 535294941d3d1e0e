"""Find the videos that are judged: references, candidates, and those beside them, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.beside import AGAIN
from engines.errors import InputError, UsageError, entries_of
from pipeline.batch.dataset import VIDEO_SUFFIXES, stem_of

REFERENCE, CANDIDATE = "the reference", "the candidate"


@dataclass(frozen=True)
class Folders:
    """Folders of references and of candidates, as <id>.mp4 or another video, and skeleton videos by id.

    beside: folders of the same videos made otherwise, whose distance from the reference is a scale: another
    seed, the base again (bench/beside.py).
    """

    reference: Path
    candidate: Path
    skeletons: Mapping[str, Path]
    beside: Mapping[str, Path] = field(default_factory=dict)


def find_wanted(
    reference: Path, beside: Mapping[str, Path]
) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Find the references, and by name of each folder beside them the videos in it.

    InputError: a folder has no video, or one beside lacks a reference's; of the base again one video will do.
    """
    wanted, found = videos_in(reference), {name: videos_in(folder) for name, folder in beside.items()}
    for name, others in found.items():
        missing = sorted(wanted.keys() - others.keys())
        if missing if name != AGAIN else not wanted.keys() & others.keys():
            raise InputError(f"{beside[name]}, {name}, lacks {', '.join(missing)}")
    return wanted, found


def videos_in(folder: Path) -> dict[str, Path]:
    """Find the videos of a folder by name without suffix, in Unicode's NFC as ids of requests are.

    InputError: there is none, or there are two of a name, or the folder cannot be listed.
    """
    videos: dict[str, Path] = {}
    for path in entries_of(folder, "it should hold videos"):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            name = stem_of(path)
            if name in videos:
                raise InputError(f"{folder} has two videos named {name}; keep one")
            videos[name] = path
    if not videos:
        raise InputError(f"{folder} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return videos


def check_apart(folders: Mapping[str, Path], timed: Path | None = None) -> None:
    """Raise UsageError if one folder has two parts: a video that is held against itself says nothing.

    folders: by what they are, REFERENCE first. timed: the folder whose videos are made anew, where none
    of them may lie.
    """
    seen: dict[Path, str] = {}
    for name, folder in folders.items():
        place = folder.resolve()
        if place in seen:
            how = "give the folder to be judged" if name == CANDIDATE else "make that by a run of its own"
            raise UsageError(f"{folder} is {seen[place]} itself, not {name}; {how}")
        if timed and place.is_relative_to(timed.resolve()):
            raise UsageError(f"{folder}, {name}, is where timed videos go; move it, or give another --out")
        seen[place] = name
