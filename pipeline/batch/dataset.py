"""Find the requests of a data folder: skeleton videos and pictures of people, paired by a list or by name."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engines.errors import InputError

VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
MOST_REQUESTS = 100_000  # a run holds all manifest lines in memory
SEED = 42  # of requests for which neither pairs.csv nor the caller gives one


@dataclass(frozen=True)
class Request:
    """One output video to make, from a skeleton video, a picture of the person and a seed."""

    id: str
    video: Path
    image: Path
    seed: int

    def described(self) -> dict[str, str | int]:
        """Return the request's fields for a manifest line."""
        return {"id": self.id, "video": str(self.video), "image": str(self.image), "seed": self.seed}


@dataclass(frozen=True)
class Pairing:
    """The requests of a data folder, and by id why other files could not be paired."""

    requests: list[Request]
    unpaired: dict[str, str]


def find_requests(data: Path, seed: int = SEED) -> Pairing:
    """Pair videos with pictures: by pairs.csv if there is one, else by equal stems, else one image for all.

    seed: for every request to which pairs.csv gives none. InputError: the folder is missing or empty, or has
    more than MOST_REQUESTS requests.
    """
    if not data.is_dir():
        raise InputError(f"data folder {data} does not exist; it needs videos/ and images/ in it")
    pairing = _listed(data, seed) if (data / "pairs.csv").is_file() else _by_name(data, seed)
    count = len(pairing.requests) + len(pairing.unpaired)
    if count > MOST_REQUESTS:
        raise InputError(f"{data} has {count} videos, more than {MOST_REQUESTS}; make folders of fewer")
    return pairing


def first_requests(data: Path, count: int) -> list[Request]:
    """Return at most `count` requests of a data folder, to measure on. InputError: it has none."""
    pairing = find_requests(data)
    if not pairing.requests:
        raise InputError(f"no video in {data} has its image: {'; '.join(pairing.unpaired.values())}")
    return pairing.requests[:count]


def _by_name(data: Path, seed: int) -> Pairing:
    """Pair the files of data/videos and data/images by their stems. InputError: one folder has none."""
    videos, images = _by_stem(data / "videos", VIDEO_SUFFIXES), _by_stem(data / "images", IMAGE_SUFFIXES)
    if not videos or not images:
        empty = data / ("videos" if not videos else "images")
        wanted = sorted(VIDEO_SUFFIXES if not videos else IMAGE_SUFFIXES)
        raise InputError(f"{empty} holds no file ending in {', '.join(wanted)}")
    unpaired = {
        stem: f"two files with this name: {', '.join(p.name for p in paths)}; keep one"
        for stem, paths in (*videos.items(), *images.items())
        if len(paths) > 1
    }
    if len(images) == 1 and not videos.keys() & images.keys() and not images.keys() & unpaired.keys():
        only = next(iter(images.values()))[0]
        images = {stem: [only] for stem in videos}
    for stem in sorted(videos.keys() - images.keys()):
        why = f"{videos[stem][0]} has no image; add images/{stem}.png or a line to pairs.csv"
        unpaired.setdefault(stem, why)
    for stem in sorted(images.keys() - videos.keys()):
        why = f"{images[stem][0]} has no video; add videos/{stem}.mp4, a line to pairs.csv, or remove it"
        unpaired.setdefault(stem, why)
    return Pairing(
        [
            Request(stem, videos[stem][0], images[stem][0], seed)
            for stem in sorted(videos.keys() & images.keys())
            if stem not in unpaired
        ],
        unpaired,
    )


def _by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Return a folder's files with these suffixes by stem (Unicode NFC). InputError: there is no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; a data folder has videos/ and images/ in it")
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            # macOS stores an accent and its letter as two characters; others store them as one.
            stems.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
    return stems


def _listed(data: Path, seed: int) -> Pairing:
    """Read the pairs of data/pairs.csv. InputError: it is not UTF-8, or a column or line is wrong."""
    table = data / "pairs.csv"
    requests, unpaired = [], {}
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 ({error}); save it as CSV UTF-8") from error
    with io.StringIO(text, newline="") as lines:
        rows = csv.DictReader(lines)
        if not {"id", "video", "image"} <= set(rows.fieldnames or ()):
            raise InputError(
                f"{table} needs the columns id,video,image and may have seed; it has {rows.fieldnames}"
            )
        for row in rows:
            request = _listed_request(data, table, rows.line_num, row, seed)
            if any(request.id == other.id for other in requests) or request.id in unpaired:
                raise InputError(f"{table}, line {rows.line_num}: id {request.id!r} is there twice")
            lost = [path for path in (request.video, request.image) if not path.is_file()]
            if lost:
                unpaired[request.id] = f"{table}, line {rows.line_num}: {lost[0]} does not exist"
            else:
                requests.append(request)
    if not requests and not unpaired:
        raise InputError(f"{table} lists no request; add a line under its header")
    return Pairing(requests, unpaired)


def _listed_request(data: Path, table: Path, line: int, row: dict[str, str], seed: int) -> Request:
    """Return the request of one row of pairs.csv. InputError: its id or its seed cannot be used."""
    name, chosen = (row["id"] or "").strip(), (row.get("seed") or "").strip()
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(
            f"{table}, line {line}: {name!r} cannot name an output file; use letters, digits, - and _"
        )
    if chosen and not chosen.isdecimal():
        raise InputError(f"{table}, line {line}: seed {chosen!r} is not a whole number >= 0")
    return Request(
        name,
        data / "videos" / (row["video"] or ""),
        data / "images" / (row["image"] or ""),
        int(chosen) if chosen else seed,
    )
