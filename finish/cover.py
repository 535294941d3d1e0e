"""The frame of a video that makes the best cover."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from engines.errors import InputError, OutputError, entries_of
from engines.files import atomic_write
from finish.sampling import sample
from finish.scorer import BATCH, Scorer
from pipeline.batch.dataset import VIDEO_SUFFIXES, stem_of

FRAMES = 64  # looked at in a video, unless the time ends before
Numbered = tuple[int, np.ndarray]


@dataclass(frozen=True)
class Chosen:
    """The cover of a video: frame, score and picture of the best, and the scores of all that were seen."""

    frame: int
    score: float
    scores: dict[int, float]
    picture: np.ndarray

    def to_json(self) -> dict:
        """All but the picture."""
        return {"frame": self.frame, "score": self.score, "scores": self.scores}


def choose_cover(path: Path, scorer: Scorer, frames: int = FRAMES, seconds: float = np.inf) -> Chosen:
    """Look at some frames of a video, at most for so many seconds; decoding and scoring overlap.

    InputError: not a whole video, or no score is a number.
    """
    best, scores = None, {}
    for batch in ahead(_batches(sample(path, frames, seconds))):
        found = scorer([picture for _, picture in batch])
        scores.update({number: float(score) for (number, _), score in zip(batch, found, strict=True)})
        for (number, picture), score in zip(batch, found, strict=True):
            if np.isfinite(score) and (best is None or score > best.score):
                best = Chosen(number, float(score), scores, picture)
    if best is None:
        raise InputError(f"{path}: the scorer gives no number for any frame; is it trained for pictures?")
    return best


def videos_of(path: Path) -> list[Path]:
    """A video itself, or the videos of a folder in order; InputError: none, or two of a name."""
    if not path.is_dir():
        return [path]
    found = [each for each in entries_of(path, "it should hold videos")
             if each.suffix.lower() in VIDEO_SUFFIXES and not each.name.startswith(".")]  # fmt: skip
    if not found:
        raise InputError(f"{path} holds no file ending in {', '.join(sorted(VIDEO_SUFFIXES))}")
    stems = [stem_of(each) for each in found]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise InputError(f"{path} holds two videos named {twice}, whose covers would be one file; rename one")
    return found


def ahead(items: Iterable) -> Iterator:
    """The same items, the next one made in a thread meanwhile; what stops that is raised here."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, iterator, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, iterator, end)
            yield item


def write_whole(path: Path, data: bytes) -> None:
    """Write bytes to a file, whole or not at all; OutputError if the disk or the folder refuses it."""
    try:
        with atomic_write(path) as draft:
            draft.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Check disk and folder.") from error


def _batches(items: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    while batch := list(islice(items, BATCH)):
        yield batch
