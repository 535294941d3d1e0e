"""Write the list of a data folder, which names the files of its requests wherever they lie.

A name that is no UTF-8, as one from a Chinese archive, is written with the bytes that it has.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.batch.dataset import Request


def list_requests(requests: Sequence[Request], folder: Path) -> None:
    """Write a data folder's pairs.csv, with all that the requests have; files elsewhere by absolute paths."""
    folder.mkdir(parents=True, exist_ok=True)
    videos, images = folder / "videos", folder / "images"
    rows = [
        {
            "id": each.id,
            "video": _named(each.video, videos),
            "image": _named(each.image, images),
            "seed": each.seed,
            **{name: _named(path, images) for name, path in each.pictures.items()},
            **each.columns,
        }
        for each in requests
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    table = folder / "pairs.csv"
    table.unlink(missing_ok=True)
    with table.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _named(path: Path, room: Path) -> str:
    """Return a file's name in pairs.csv: from its room of the data folder, absolute where it is not in it."""
    return (path.relative_to(room) if path.is_relative_to(room) else path.absolute()).as_posix()
