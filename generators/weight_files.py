"""The files of a checkpoint, and the licence of its weights; nothing here imports torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from engines.errors import not_a_file
from generators.generator_error import GeneratorError

SAFETENSORS, TORCH = (".safetensors",), (".pt", ".pth", ".ckpt", ".bin")
INDEX = ".index.json"
NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
CARD_SIZE = 1 << 20  # characters of a card that are read
CARDS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")
# What to look for, strictest first: a card that says "apache-2.0" and "research only" is non-commercial.
LICENCES = {
    "non-commercial": r"non-?commercial|\bcc-by-nc|(academic|research)[\w\s/,]{0,40} (purposes? )?only"
    r"|not for commercial",
    "community licence": r"community licen[sc]e|-community\b|openrail",
    "apache-2.0": r"apache-2\.0|apache license\W+version 2\.0",
}


def weight_files(path: Path) -> tuple[Path, ...]:
    """List the files of a checkpoint: a file itself, the shards of an index, or what a folder holds.

    In a folder an index comes first, then safetensors before torch files; shards are numbered as
    name-00001-of-00007. GeneratorError if there is nothing, a shard is missing, or several files are meant.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise GeneratorError(f"no checkpoint at {path}; give a weights file, an index or their folder")
    if path.name.endswith(INDEX):
        return _of_index(path)
    if path.suffix not in SAFETENSORS + TORCH:
        known = ", ".join((*SAFETENSORS, *TORCH))
        raise GeneratorError(f"{path} is no checkpoint by its name; known are {known} and {INDEX}")
    return _whole_set(path) if NUMBERED.fullmatch(path.name) else (path,)


def expected_files(path: Path) -> tuple[Path, ...]:
    """List the files of a checkpoint; where they are not whole, name the place alone, as loading says why."""
    try:
        return weight_files(path)
    except GeneratorError:  # as in a submission, which brings none
        return (path,)


def licence(file: Path) -> str:
    """Classify a checkpoint's licence: apache-2.0, community licence, non-commercial, or unknown.

    Read from the model card or LICENSE in the file's folder, or above it where that is a whole model's.
    It is what the card says, not legal advice.
    """
    folder = file if file.is_dir() else file.parent
    whole = any((folder.parent / name).is_file() for name in ("model_index.json", "vivace.toml"))
    folders = [folder] + [folder.parent] * whole
    for card in (each / name for each in folders for name in CARDS):
        if not not_a_file(card):
            with card.open(encoding="utf-8", errors="replace") as file:
                text = file.read(CARD_SIZE).lower()
            stated = re.search(r"^licen[sc]e(_name)?:\s*(\S+)", text, re.MULTILINE)
            found = next((name for name, marks in LICENCES.items() if re.search(marks, text)), None)
            if found:
                return f"{found} (by {card})"
            if stated:
                return f"unknown ({card} names {stated[2]!r})"
    return f"unknown (no model card or LICENSE in {folder})"


def licences(sources: Iterable[Path]) -> list[str]:
    """Write a sentence on the licence of each folder of weights among a generator's files that is here."""
    weights = [path for path in sources if path.suffix in SAFETENSORS + TORCH and path.is_file()]
    found = {path.parent: path for path in reversed(weights)}
    return [f"weights in {folder}: licence {licence(path)}" for folder, path in sorted(found.items())]


def _in_folder(folder: Path) -> tuple[Path, ...]:
    indices = sorted(folder.glob(f"*{INDEX}"))
    for kinds in (SAFETENSORS, TORCH):
        index = [path for path in indices if Path(path.name.removesuffix(INDEX)).suffix in kinds]
        files = sorted(path for path in folder.iterdir() if path.suffix in kinds)
        if len(index) == 1:
            return _of_index(index[0])
        sets = {_whole_set(path) if NUMBERED.fullmatch(path.name) else (path,) for path in files}
        if len(sets) == 1:
            return sets.pop()
        if sets:
            names = ", ".join(path.name for path in files[:10])
            raise GeneratorError(f"{folder} holds more than one checkpoint: {names}; give the one file")
    raise GeneratorError(f"{folder} holds no weights; expected {', '.join((*SAFETENSORS, *TORCH))} in it")


def _of_index(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, OSError) as error:
        raise GeneratorError(f"{index} is no index of shards: {error!r}; download it again") from error
    if not files:
        raise GeneratorError(f"{index} names no shard; download it again")
    return _present(files)


def _whole_set(path: Path) -> tuple[Path, ...]:
    parts = NUMBERED.fullmatch(path.name)
    count = int(parts["count"])
    numbers = (f"{number:05}-of-{count:05}" for number in range(1, count + 1))
    return _present([path.with_name(f"{parts['stem']}-{number}{parts['suffix']}") for number in numbers])


def _present(files: list[Path]) -> tuple[Path, ...]:
    missing = [path.name for path in files if not_a_file(path)]
    if missing:
        names = ", ".join(missing[:10])
        where = f"{len(missing)} of {len(files)} shards are missing in {files[0].parent}"
        raise GeneratorError(f"{where}: {names}")
    return tuple(files)
