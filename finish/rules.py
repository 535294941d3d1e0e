"""What a contest's rounds ask about the size of a model: on every line, identical, and a factor for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from engines.errors import InputError
from finish.predictions import is_number, read_lines, short

KEY = "model_size_mb"
# Megabytes (a million bytes, the cautious reading) up to which a score counts so much; above, not at all.
FACTORS = ((100.0, 1.0), (500.0, 0.95), (9000.0, 0.9))
ROUNDS = {False: f"first round, without {KEY}", True: f"later rounds, {KEY} on every line"}


def factor(size_mb: float) -> float:
    """What a score counts for a model of that size. ValueError: it is too large for the contest."""
    for most, part in FACTORS:
        if size_mb <= most:
            return part
    raise ValueError(f"{KEY} is {size_mb}; at most {FACTORS[-1][0]:g} is allowed")


def size_faults(path: Path, later: bool | None = None) -> tuple[bool, list[str]]:
    """Whether the later rounds' rules apply, and all that is wrong by them with the size on a file's lines.

    later: None if the file shall say it itself, by a size on any line.
    """
    lines = [(number, line) for number, line in read_lines(path) if isinstance(line, Mapping)]
    given = {number: line[KEY] for number, line in lines if KEY in line}
    later = bool(given) if later is None else later
    if not later:
        return False, [f"line {number}: {KEY} is not known in the first round" for number in given]
    wrong, first = [], None
    for number, _ in lines:
        if number not in given:
            wrong.append(f"line {number}: {KEY} missing")
        elif fault := _fault(given[number]):
            wrong.append(f"line {number}: {fault}")
        elif first is None:
            first = number
        elif given[number] != given[first]:
            said, before = short(given[number]), short(given[first])
            wrong.append(f"line {number}: {KEY} is {said}; on line {first} it is {before}")
    return True, wrong


def model_size(path: Path) -> float | None:
    """The size that all lines of a file state; None if none does. InputError: they differ, or it is none."""
    later, wrong = size_faults(path)
    if wrong:
        raise InputError(f"{path}, {wrong[0]}")
    return next(float(line[KEY]) for _, line in read_lines(path)) if later else None


def size_of(files: Iterable[Path]) -> float:
    """Megabytes of networks' files, and of weights beside a graph; rounded up to two decimals."""
    every = {part for file in files for part in (file, file.with_name(f"{file.name}.data")) if part.is_file()}
    return math.ceil(sum(part.stat().st_size for part in every) / 1e4) / 100


def _fault(size: object) -> str | None:
    if not is_number(size) or size <= 0:
        return f"{KEY} is {short(size)}; expected a number above 0"
    try:
        factor(size)
    except ValueError as error:
        return str(error)
    return None
