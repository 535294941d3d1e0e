"""Find the requests of a data folder: skeleton videos and pictures of people, paired by a list or by name."""

from __future__ import annotations

import csv
import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines.artifact import file_sha256
from engines.errors import InputError, OutputError, check_file, entries_of, not_a_file, reading
from pipeline.video.image import PICTURE_SUFFIXES

# The containers that pipeline/video/ffmpeg.py lets ffmpeg read, by the endings that files of them have.
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".divx", ".ts", ".m2ts",
    ".mts", ".mpg", ".mpeg", ".vob", ".flv", ".wmv", ".asf", ".ogv", ".ogg", ".ogm", ".nut", ".ivf", ".y4m",
    ".mxf", ".dv",
}  # fmt: skip
ANIMATION_SUFFIXES = {".gif", ".apng", ".webp"}  # of skeletons; beside a video of that name they are previews
SKELETON_SUFFIXES = VIDEO_SUFFIXES | ANIMATION_SUFFIXES
IMAGE_SUFFIXES = set(PICTURE_SUFFIXES)
OUTPUTS = "outputs"  # subfolder of a data folder with the base model's videos
LITTER = {"thumbs.db", "desktop.ini"}  # of file managers, beside names that begin with a dot
MOST_REQUESTS = 100_000  # a run holds all manifest lines in memory
COLUMNS = ("id", "video", "image", "seed", None)  # None: cells beyond the header's
PICTURE = re.compile(r"image[1-9]\d*")  # a column that names a further picture
LONGEST = 255  # bytes of a file's name
SEED = 42  # of requests for which neither pairs.csv nor the caller gives one
SHOWN = 60  # characters of a name or number in an error
DIGITS = 100  # of a seed, zeros in front included
SEEDS = 2**63  # a seed is below this, as those of all generators' random numbers are


@dataclass(frozen=True)
class Request:
    """One output video to make, from a skeleton video, a picture of the person and a seed.

    pictures: further ones, by column of pairs.csv: image2, image3 and so on. columns: texts of other columns.
    """

    id: str
    video: Path
    image: Path
    seed: int
    pictures: Mapping[str, Path] = field(default_factory=dict, hash=False)
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def absolute(self) -> Request:
        """Return the request with absolute paths, for processes with another working folder."""
        pictures = {name: path.absolute() for name, path in self.pictures.items()}
        return replace(self, video=self.video.absolute(), image=self.image.absolute(), pictures=pictures)

    def described(self) -> dict[str, object]:
        """Return the request's fields for a manifest line."""
        pictures = {name: str(path) for name, path in {"image": self.image, **self.pictures}.items()}
        line = {"id": self.id, "video": str(self.video), **pictures, "seed": self.seed}
        return {**line, "columns": dict(self.columns)} if self.columns else line

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of its files, by manifest field. InputError: one cannot be read."""
        found = {}
        for kind, path in {"video": self.video, "image": self.image, **self.pictures}.items():
            check_file(path, "video" if kind == "video" else "picture")
            with reading(path):
                found[f"{kind}_sha256"] = file_sha256(path)
        return found


@dataclass(frozen=True)
class Pairing:
    """The requests of a data folder, and why its other files give none.

    unpaired: by id, why there is no video of that name. ignored: by path in the folder, what is not taken.
    """

    requests: list[Request]
    unpaired: dict[str, str]
    ignored: dict[str, str] = field(default_factory=dict)


def hash_output(output: Path) -> str:
    """Return a finished video's SHA-256. OutputError: it is not there any more."""
    try:
        return file_sha256(output)
    except OSError as error:
        raise OutputError(f"{output}: was written and is gone ({error.strerror}); make it again") from error


def find_requests(data: Path, seed: int = SEED) -> Pairing:
    """Pair videos with pictures: by pairs.csv if there is one, else by equal stems, else one image for all.

    seed: for every request to which pairs.csv gives none. InputError: the folder is missing or empty, or has
    more than MOST_REQUESTS requests.
    """
    with reading(data):  # whose own folder may be locked
        there = data.is_dir()
    if not there:
        raise InputError(f"data folder {data} does not exist; it needs videos/ and images/ in it")
    pairing = _listed(data, seed) if os.path.lexists(data / "pairs.csv") else _by_name(data, seed)
    _check_count(data, len(pairing.requests) + len(pairing.unpaired))
    return pairing


def _check_count(data: Path, count: int) -> None:
    if count > MOST_REQUESTS:
        raise InputError(f"{data} has {count} videos, more than {MOST_REQUESTS}; make folders of fewer")


def first_requests(
    data: Path, count: int | None = None, say: Callable[[str], None] | None = None
) -> list[Request]:
    """Return at most `count` requests of a data folder, None for all. InputError: it has none.

    say: is told of videos and pictures that are left out, as they have no pair.
    """
    pairing = find_requests(data)
    for why in pairing.unpaired.values() if say and pairing.requests else ():
        say(f"note: left out: {why}")
    if not pairing.requests:
        raise InputError(f"no video in {data} has its image: {'; '.join(pairing.unpaired.values())}")
    return pairing.requests[:count]


def _by_name(data: Path, seed: int) -> Pairing:
    """Pair the files of data/videos and data/images by their stems. InputError: one folder has none."""
    ignored: dict[str, str] = {}
    videos = _by_stem(data / "videos", SKELETON_SUFFIXES, "video: convert it to MP4", ignored)
    images = _by_stem(data / "images", IMAGE_SUFFIXES, "picture: convert it to PNG", ignored)
    if not videos or not images:
        empty = data / ("videos" if not videos else "images")
        wanted = sorted(SKELETON_SUFFIXES if not videos else IMAGE_SUFFIXES)
        there = [why for path, why in ignored.items() if path.startswith(f"{empty.name}/")][:1]
        raise InputError("; ".join([f"{empty} holds no file ending in {', '.join(wanted)}", *there]))
    for stem, paths in videos.items():
        real = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
        if len(real) == 1:  # animations of its name are previews of it
            for path in sorted(set(paths) - set(real)):
                ignored[f"videos/{path.name}"] = f"{path} is not taken beside {real[0].name}"
            videos[stem] = real
    unpaired = {
        stem: why
        for stem, paths in (*images.items(), *videos.items())
        if (why := _why_not(stem, paths)) is not None
    }
    usable = [stem for stem in images if stem not in unpaired]
    if len(usable) == len(images) == 1 and not videos.keys() & images.keys():
        images = {stem: images[usable[0]] for stem in videos}
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
        ignored,
    )


def stem_of(path: Path) -> str:
    """Return a file's name without suffix, an accent and its letter as one; macOS stores them as two."""
    return unicodedata.normalize("NFC", path.stem)


def _by_stem(
    folder: Path, suffixes: Iterable[str], what: str, ignored: dict[str, str]
) -> dict[str, list[Path]]:
    """Return a folder's entries with these suffixes by stem (Unicode NFC); add the others to ignored.

    what: the kind of file, and what to do with another. InputError: as entries_of.
    """
    stems: dict[str, list[Path]] = {}
    for path in entries_of(folder, "a data folder has videos/ and images/ in it"):
        if path.name.startswith(".") or path.name.lower() in LITTER:
            continue
        if path.suffix.lower() in suffixes:
            stems.setdefault(stem_of(path), []).append(path)
        elif not_a_file(path) == "is a folder":
            ignored[f"{folder.name}/{path.name}"] = f"{path} is a folder and not taken; make a file of it"
        else:
            ignored[f"{folder.name}/{path.name}"] = f"{path} is not taken, by its ending it is no {what}"
    return stems


def _why_not(stem: str, paths: list[Path]) -> str | None:
    """Return why the entries of one stem in a folder cannot be used; None if they can."""
    if len(paths) > 1:
        return f"two files with this name: {', '.join(path.name for path in paths)}; keep one"
    if why := not_a_file(paths[0]):
        return f"{paths[0]}: {why}; put a file in its place, or remove it"
    if _too_long(stem):
        return f"{paths[0]} has a name too long for {stem[:20]}....mp4; give it a shorter one"
    return None


def _has_controls(name: str) -> bool:
    return not name.isprintable() and any(unicodedata.category(each) == "Cc" for each in name)


def _too_long(name: str) -> bool:
    return len(os.fsencode(f"{name}.mp4")) > LONGEST


def _listed(data: Path, seed: int) -> Pairing:
    """Read the pairs of data/pairs.csv. InputError: it is no CSV in UTF-8, or a column or line is wrong.

    Names of files that are there may be other bytes than UTF-8's.
    """
    table = data / "pairs.csv"
    if why := not_a_file(table):
        raise InputError(f"{table}: {why}; put the list of pairs in its place, or remove it")
    try:
        with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            return _read_pairs(data, csv.DictReader(lines), table, seed)
    except csv.Error as error:
        raise InputError(f"{table} is not a CSV file ({error}); save it as CSV UTF-8") from error
    except OSError as error:
        raise InputError(f"{table}: cannot be read ({error.strerror}); check permissions") from error


def _check_text(row: Mapping[str, str], request: Request, table: Path, line: int) -> None:
    """Raise InputError for what is no UTF-8 in a row, but for names of files that are there, and its id."""
    paths = {"video": request.video, "image": request.image, **request.pictures}
    named = [path for column, path in paths.items() if not _is_text(row[column])]
    texts = [*request.columns.values(), *([] if named else [request.id])]
    if not all(map(_is_text, texts)) or any(map(not_a_file, named)):
        where = f"line {line} has other bytes, and not as the name of a file"
        raise InputError(f"{table} is not UTF-8 ({where}); save it as CSV UTF-8")


def _is_text(text: str | None) -> bool:
    """Tell whether a text that was read with surrogateescape was UTF-8."""
    return not text or text.isascii() or not any("\udc80" <= each <= "\udcff" for each in text)


def _read_pairs(data: Path, rows: csv.DictReader, table: Path, seed: int) -> Pairing:
    if not all(map(_is_text, rows.fieldnames or ())):
        raise InputError(f"{table} is not UTF-8 (its header has other bytes); save it as CSV UTF-8")
    if not {"id", "video", "image"} <= set(rows.fieldnames or ()):
        raise InputError(
            f"{table} needs the columns id,video,image and may have seed; it has {rows.fieldnames}"
        )
    requests: dict[str, Request] = {}
    unpaired: dict[str, str] = {}
    folders, why_not = (data / "videos", data / "images"), functools.cache(not_a_file)  # many share a picture
    for row in rows:
        request = _listed_request(folders, f"{table}, line {rows.line_num}", row, seed)
        _check_text(row, request, table, rows.line_num)
        if request.id in requests or request.id in unpaired:
            raise InputError(f"{table}, line {rows.line_num}: id {request.id!r} is there twice")
        for path in (request.video, request.image, *request.pictures.values()):
            if why := why_not(path):
                unpaired.setdefault(request.id, f"{table}, line {rows.line_num}: {path} {why}")
        if request.id not in unpaired:
            requests[request.id] = request
        _check_count(data, len(requests) + len(unpaired))
    if not requests and not unpaired:
        raise InputError(f"{table} lists no request; add a line under its header")
    return Pairing(list(requests.values()), unpaired)


def _listed_request(folders: tuple[Path, Path], where: str, row: dict[str, str], seed: int) -> Request:
    """Return the request of one row of pairs.csv. InputError: its id or its seed cannot be used."""
    name, chosen = (row["id"] or "").strip(), (row.get("seed") or "").strip()
    shown = repr(name if len(name) <= SHOWN else f"{name[:SHOWN]}...")
    if not name or os.path.basename(name) != name or name.startswith(".") or _has_controls(name):
        raise InputError(f"{where}: {shown} cannot name an output file; use letters, digits, - and _")
    if _too_long(name):
        raise InputError(f"{where}: {shown} is too long for a file's name; use less than 60 letters")
    if chosen and not (chosen.isdecimal() and len(chosen) < DIGITS and int(chosen) < SEEDS):
        chosen = chosen if len(chosen) <= SHOWN else f"{chosen[:SHOWN]}..."
        raise InputError(f"{where}: seed {chosen!r} is not a whole number >= 0 and < 2**63")
    others = {key: text.strip() for key, text in row.items() if key not in COLUMNS and isinstance(text, str)}
    return Request(
        name,
        folders[0] / (row["video"] or ""),
        folders[1] / (row["image"] or ""),
        int(chosen) if chosen else seed,
        {key: folders[1] / text for key, text in others.items() if text and PICTURE.fullmatch(key)},
        {key: text for key, text in others.items() if text and not PICTURE.fullmatch(key)},
    )
