"""The metric of highlights: how much of what is predicted, and of what is true, the boxes have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import InputError
from finish.predictions import Frames, id_of, is_number, malformed, problems, ratio_of, read_index, read_lines

Box = Sequence[float]


def overlap(a: Box, b: Box, ratio: tuple[float, float]) -> float:
    """Intersection over union of two boxes x, y, w of one ratio (width, height), from 0 to 1."""
    tall, unit = ratio[1] / ratio[0], max(a[2], b[2])  # the square of a tiny width would be 0
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[2] * tall, b[1] + b[2] * tall) - max(a[1], b[1])
    common = max(0.0, wide / unit) * max(0.0, high / unit)
    return common / (((a[2] / unit) ** 2 + (b[2] / unit) ** 2) * tall - common)


@dataclass(frozen=True)
class Score:
    """F of a video, 0 to 1, and the overlap of each of its predictions with the truth (N,), 0 to 1."""

    f: float
    overlaps: Sequence[float]


def score_video(predictions: Sequence, truth: Sequence, frames: Frames) -> Score:
    """F of one video: P = S / predictions, R = S / true frames, S the sum of overlaps.

    Both empty is 1, one empty 0. Invalid and repeated predictions count in their number and have no overlap.
    """
    if not predictions or not truth:
        return Score(float(not predictions and not truth), [0.0] * len(predictions))
    true = {each["frame"]: each["bboxes"] for each in truth}
    seen: set[int] = set()
    overlaps = [0.0] * len(predictions)
    for place, prediction in enumerate(predictions):
        if problems(prediction, frames, seen) is None:
            seen.add(prediction["frame"])
            if prediction["frame"] in true:
                overlaps[place] = overlap(prediction["bboxes"], true[prediction["frame"]], frames.ratio)
    total = sum(overlaps)
    precision, recall = total / len(predictions), total / len(truth)
    return Score(2 * precision * recall / (precision + recall) if total else 0.0, overlaps)


def score_file(predictions: Path, truth: Path, videos: Path | None = None) -> dict[str, Score]:
    """The score of each video of a truth file, whose lines also have frames, width and height of the video.

    videos: a folder; then these three are its videos' own. A video without a line has no predictions.
    InputError: a line of either cannot be read, an id is repeated or unknown, or there is no truth; `check`
    says all that is wrong.
    """
    wanted, found = _by_id(truth), _by_id(predictions)
    if not wanted:
        raise InputError(f"{truth}: has no line; expected the truth of a video on each")
    unknown = sorted(found.keys() - wanted.keys())
    if unknown:
        raise InputError(f"{predictions}: video_id {unknown[0]!r} is not in {truth}")
    entries = read_index(truth) if videos else {}
    scores = {}
    for name, line in wanted.items():
        try:
            frames = entries[name].frames(videos) if videos else _shape(line)
            if wrong := next(filter(None, map(malformed, line["predictions"])), None):
                raise ValueError(wrong)
            if len({each["frame"] for each in line["predictions"]}) < len(line["predictions"]):
                raise ValueError("a frame is there twice")
        except ValueError as error:
            raise InputError(f"{truth}: the truth of {name!r} cannot be used: {error}") from error
        made = found[name]["predictions"] if name in found else []
        scores[name] = score_video(made, line["predictions"], frames)
    return scores


def _shape(line: Mapping) -> Frames:
    """Frames, width and height that a line of the truth has. ValueError."""
    for key in ("frames", "width", "height"):
        value = line.get(key)
        if not is_number(value) or value <= 0 or value != int(value):
            raise ValueError(f"{key} is {value!r}; expected a whole number above 0 (or --videos)")
    return Frames(int(line["frames"]), int(line["width"]), int(line["height"]), ratio_of(line))


def _by_id(path: Path) -> dict[str, Mapping]:
    lines: dict[str, Mapping] = {}
    for number, line in read_lines(path):
        if isinstance(line, ValueError):
            raise InputError(f"{path}, line {number}: {line}")
        name = id_of(line) if isinstance(line, Mapping) else None
        if not name or not isinstance(line.get("predictions"), list):
            raise InputError(f"{path}, line {number}: expected an object with video_id and predictions")
        if name in lines:
            raise InputError(f"{path}, line {number}: video_id {name!r} is there twice")
        lines[name] = line
    return lines
