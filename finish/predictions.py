"""Index and prediction files, one JSON object a line, and all that can be wrong with a prediction."""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from reprlib import Repr

from engines.errors import InputError, check_file
from pipeline.video.reader import probe

EDGE = 1e-9  # pixels that rounding may put a box outside of the picture; 1e-6 is outside
SHORT = Repr()
SHORT.maxstring, short = 100, SHORT.repr
FILE_KEYS = ("video", "video_path", "path", "file", "file_name", "filename", "video_name", "video_file")


@dataclass(frozen=True)
class Entry:
    """A line of an index: which video is to be cut to which ratio (width, height), and the line itself.

    key: what the line calls the video's file.
    """

    id: str
    key: str
    file: str
    ratio: tuple[float, float]
    line: Mapping

    def video(self, folder: Path) -> Path:
        """Return the path of the video in a folder; an index may name the folder too."""
        path, beside = map(_spelled, (folder / self.file, folder / PurePosixPath(self.file).name))
        return beside if beside.is_file() and not path.is_file() else path

    def frames(self, folder: Path) -> Frames:
        """Return what boxes must lie in, by the video in a folder. InputError: it cannot be read."""
        info = probe(self.video(folder))
        return Frames(info.frames, info.width, info.height, self.ratio)


@dataclass(frozen=True)
class Frames:
    """What a box must lie in: number of frames, width and height of the picture, ratio of the box."""

    count: int
    width: int
    height: int
    ratio: tuple[float, float]


def _spelled(path: Path) -> Path:
    """Return the file of that name in its folder, where accents may be stored as letters of their own."""
    if path.is_file() or path.name.isascii() or not path.parent.is_dir():
        return path
    name = unicodedata.normalize("NFC", path.name)
    return next((e for e in path.parent.iterdir() if unicodedata.normalize("NFC", e.name) == name), path)


def read_lines(path: Path) -> Iterator[tuple[int, object]]:
    """Number and value of each line of a JSONL file that is not blank; ValueError for one that is no JSON.

    Byte order marks are read, and UTF-16 that begins with one.
    """
    check_file(path, "JSONL")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode("utf-8", "surrogatepass")
    for number, text in enumerate(data.splitlines(), start=1):
        if text.removeprefix(codecs.BOM_UTF8).strip():
            try:
                yield number, json.loads(text.decode("utf-8-sig"))
            except ValueError as error:  # no UTF-8 is one too
                yield number, ValueError(f"no JSON ({error})")
            except RecursionError:
                yield number, ValueError("no JSON of ours (too deeply nested)")


def dumped(line: Mapping) -> bytes:
    """Return a line as JSON in UTF-8; in ASCII if half a pair of UTF-16 is in it, which UTF-8 cannot say."""
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(line).encode() + b"\n"


def read_index(path: Path) -> dict[str, Entry]:
    """The entries of an index by their ids. InputError names the first line that is none."""
    entries: dict[str, Entry] = {}
    for number, line in read_lines(path):
        try:
            entry = _entry(line)
            if entry.id in entries:
                raise ValueError(f"video_id {entry.id!r} is there twice")
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        entries[entry.id] = entry
    if not entries:
        raise InputError(f"{path} has no line; expected video_id, video and targetRatioWH on each")
    return entries


def malformed(prediction: object) -> str | None:
    """What of one prediction is not {"frame": n, "bboxes": [x, y, w]}; None if all is there."""
    if not isinstance(prediction, Mapping) or not {"frame", "bboxes"} <= prediction.keys():
        return "a prediction needs frame and bboxes"
    frame, box = prediction["frame"], prediction["bboxes"]
    if not isinstance(frame, int) or isinstance(frame, bool):
        return f"frame {short(frame)} is no whole number"
    if not isinstance(box, list) or len(box) != 3 or not all(is_number(value) for value in box):
        return f"frame {frame}: bboxes is {short(box)}; expected three finite numbers x, y, w"
    return None if box[2] > 0 else f"frame {frame}: box {box} is not wider than 0"


def problems(prediction: object, frames: Frames, seen: set[int]) -> str | None:
    """What is wrong with one prediction {"frame": n, "bboxes": [x, y, w]}; None if it is right.

    seen: frames that right ones came for before.
    """
    if wrong := malformed(prediction):
        return wrong
    frame, (x, y, width) = prediction["frame"], prediction["bboxes"]
    if not 0 <= frame < frames.count:
        return f"frame {frame} is outside of 0..{frames.count - 1}"
    if frame in seen:
        return f"frame {frame} is there twice"
    height = width * frames.ratio[1] / frames.ratio[0]
    inside = x >= -EDGE and y >= -EDGE and x + width <= frames.width + EDGE
    if not inside or y + height > frames.height + EDGE:
        size, box = f"{frames.width} x {frames.height}", [x, y, width]
        return f"frame {frame}: box {box} of height {height:g} is not inside the picture of {size}"
    return None


def faults(predictions: object, frames: Frames) -> Iterator[str]:
    """All that is wrong with a video's predictions."""
    if not isinstance(predictions, list):
        yield f"predictions is {type(predictions).__name__}; expected a list"
        return
    seen: set[int] = set()
    for prediction in predictions:
        if problem := problems(prediction, frames, seen):
            yield problem
        else:
            seen.add(prediction["frame"])


def out_of_order(predictions: object) -> str | None:
    """Where predictions do not ascend, which is recommended only; None if they do."""
    right = [each for each in predictions if not malformed(each)] if isinstance(predictions, list) else []
    for before, frame in pairwise(each["frame"] for each in right):
        if frame < before:
            return f"frame {frame} comes after frame {before}; ascending order is recommended"
    return None


def check_predictions(
    path: Path, entries: Mapping[str, Entry], frames: Mapping[str, Frames]
) -> tuple[list[str], list[str]]:
    """Sentences with line numbers on a prediction file: what is wrong, and what is only not recommended.

    entries: those of the index. frames: of their videos, by the same ids.
    """
    wrong, advice, lines = [], [], {}
    for number, line in read_lines(path):
        if isinstance(line, ValueError) or not isinstance(line, Mapping):
            wrong.append(f"line {number}: {line if isinstance(line, ValueError) else 'no JSON object'}")
            continue
        name = id_of(line)
        if "video_id" not in line:
            wrong.append(f"line {number}: video_id missing")
        elif name in lines:
            wrong.append(f"line {number}: video_id {name!r} is there already, on line {lines[name]}")
        elif name not in entries:
            wrong.append(f"line {number}: video_id {short(line['video_id'])} is not in the index")
        else:
            lines[name] = number
            said = [*_changed(line, entries[name]), *faults(line.get("predictions", []), frames[name])]
            wrong += [f"line {number}: {each}" for each in said]
            if disorder := out_of_order(line.get("predictions")):
                advice.append(f"line {number}: {disorder}")
    return wrong + [f"video_id {name!r} has no line" for name in entries if name not in lines], advice


def _changed(line: Mapping, entry: Entry) -> Iterator[str]:
    """What a line lacks, or has otherwise than the index."""
    for key in ("video_id", entry.key, "targetRatioWH"):
        if key not in line:
            yield f"{key} missing"
        elif line[key] != entry.line[key]:
            yield f"{key} is {short(line[key])}; the index has {short(entry.line[key])}"
    if "predictions" not in line:
        yield "predictions missing"


def id_of(line: Mapping) -> str | None:
    """The id of a line, which may be a number; None for another thing, or nothing."""
    found = line.get("video_id")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def ratio_of(line: Mapping) -> tuple[float, float]:
    """The ratio (width, height) that a line asks for; ValueError."""
    ratio = line.get("targetRatioWH")
    right = isinstance(ratio, list) and len(ratio) == 2 and all(is_number(v) and v > 0 for v in ratio)
    if not right or not 0.01 <= ratio[0] / ratio[1] <= 100:
        raise ValueError(f"targetRatioWH is {short(ratio)}; expected two numbers above 0, as [9, 16]")
    return ratio[0], ratio[1]


def _entry(line: object) -> Entry:
    if isinstance(line, ValueError):
        raise line
    if not isinstance(line, Mapping):
        raise ValueError("no JSON object")
    name, key = id_of(line), next((key for key in FILE_KEYS if key in line), "video")
    if not name or Path(name).name != name or "\0" in name:
        given = short(line.get("video_id"))
        raise ValueError(f"video_id is {given}; expected a number or the name of a file")
    file = line.get(key)
    parts = PurePosixPath(file).parts if isinstance(file, str) and "\0" not in file else ()
    if not parts or ".." in parts:
        raise ValueError(f"{key} is {short(file)}; expected the name of a file in the folder of videos")
    file = parts[-1] if parts[0] == "/" else file
    return Entry(name, key, file, ratio_of(line), line)


def is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number of a sensible size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
