"""Index and prediction files, one JSON object a line, and all that can be wrong with a prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.errors import InputError, check_file

EDGE = 1e-6  # pixels that rounding may put a box outside of the picture


@dataclass(frozen=True)
class Entry:
    """A line of an index: which video is to be cut to which ratio (width, height), and the line itself."""

    id: str
    file: str
    ratio: tuple[float, float]
    line: Mapping


@dataclass(frozen=True)
class Frames:
    """What a box must lie in: number of frames, width and height of the picture, ratio of the box."""

    count: int
    width: int
    height: int
    ratio: tuple[float, float]


def read_lines(path: Path) -> Iterator[tuple[int, object]]:
    """Number and value of each line of a JSONL file that is not blank; ValueError for one that is no JSON."""
    check_file(path, "JSONL")
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        if text.strip():
            try:
                yield number, json.loads(text.decode("utf-8"))
            except ValueError as error:  # no UTF-8 is one too
                yield number, ValueError(f"no JSON ({error})")


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


def problems(prediction: object, frames: Frames, seen: set[int]) -> str | None:
    """What is wrong with one prediction {"frame": n, "bboxes": [x, y, w]}; None if it is right.

    seen: frames that right ones came for before.
    """
    if not isinstance(prediction, Mapping) or not {"frame", "bboxes"} <= prediction.keys():
        return "a prediction needs frame and bboxes"
    frame, box = prediction["frame"], prediction["bboxes"]
    if not isinstance(frame, int) or isinstance(frame, bool):
        return f"frame {frame!r} is no whole number"
    if not 0 <= frame < frames.count:
        return f"frame {frame} is outside of 0..{frames.count - 1}"
    if frame in seen:
        return f"frame {frame} is there twice"
    if not isinstance(box, list) or len(box) != 3 or not all(_is_number(value) for value in box):
        return f"frame {frame}: bboxes is {box!r}; expected three finite numbers x, y, w"
    x, y, width = box
    height = width * frames.ratio[1] / frames.ratio[0]
    inside = x >= -EDGE and y >= -EDGE and x + width <= frames.width + EDGE
    if width <= 0 or not inside or y + height > frames.height + EDGE:
        size = f"{frames.width} x {frames.height}"
        return f"frame {frame}: box {box} of height {height:g} is not inside the picture of {size}"
    return None


def faults(predictions: object, frames: Frames) -> Iterator[str]:
    """All that is wrong with a video's predictions: in each, and in their order."""
    if not isinstance(predictions, list):
        yield f"predictions is {type(predictions).__name__}; expected a list"
        return
    seen: set[int] = set()
    last = -1
    for prediction in predictions:
        problem = problems(prediction, frames, seen)
        if problem is None:
            frame = prediction["frame"]
            seen.add(frame)
            if frame < last:
                problem = f"frame {frame} comes after frame {last}; expected ascending order"
            last = max(last, frame)
        if problem:
            yield problem


def check_predictions(path: Path, found: Mapping[str, Frames]) -> list[str]:
    """A sentence with its line number for each fault of a prediction file; found: the index's videos."""
    said, lines = [], {}
    for number, line in read_lines(path):
        if isinstance(line, ValueError) or not isinstance(line, Mapping):
            said.append(f"line {number}: {line if isinstance(line, ValueError) else 'no JSON object'}")
            continue
        missing = [key for key in ("video_id", "predictions") if key not in line]
        name = line.get("video_id")
        if missing:
            said.append(f"line {number}: {' and '.join(missing)} missing")
        elif name in lines:
            said.append(f"line {number}: video_id {name!r} is there already, on line {lines[name]}")
        elif not isinstance(name, str) or name not in found:
            said.append(f"line {number}: video_id {name!r} is not in the index")
        else:
            lines[name] = number
            said += [f"line {number}: {fault}" for fault in faults(line["predictions"], found[name])]
    return said + [f"video_id {name!r} has no line" for name in found if name not in lines]


def ratio_of(line: Mapping) -> tuple[float, float]:
    """The ratio (width, height) that a line asks for; ValueError."""
    ratio = line.get("targetRatioWH")
    right = isinstance(ratio, list) and len(ratio) == 2 and all(_is_number(v) and v > 0 for v in ratio)
    if not right:
        raise ValueError(f"targetRatioWH is {ratio!r}; expected two numbers above 0, as [9, 16]")
    return ratio[0], ratio[1]


def _entry(line: object) -> Entry:
    if isinstance(line, ValueError):
        raise line
    if not isinstance(line, Mapping):
        raise ValueError("no JSON object")
    for key in ("video_id", "video"):
        name = line.get(key)
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise ValueError(f"{key} is {name!r}; expected the name of a file in one folder")
    return Entry(line["video_id"], line["video"], ratio_of(line), line)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
