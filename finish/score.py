"""The metric of highlights: how much of what is predicted, and of what is true, the boxes have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.errors import InputError
from finish.predictions import Frames, problems, ratio_of, read_lines

Box = Sequence[float]


def overlap(a: Box, b: Box, ratio: tuple[float, float]) -> float:
    """Intersection over union of two boxes x, y, w of one ratio (width, height), from 0 to 1."""
    tall = ratio[1] / ratio[0]
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[2] * tall, b[1] + b[2] * tall) - max(a[1], b[1])
    common = max(0.0, wide) * max(0.0, high)
    return common / ((a[2] ** 2 + b[2] ** 2) * tall - common)


def score_video(predictions: Sequence, truth: Sequence, frames: Frames) -> float:
    """F of one video, 0 to 1: P = S / predictions, R = S / true frames, S the sum of overlaps.

    Both empty is 1, one empty 0. Invalid and repeated predictions count in their number and have no overlap.
    """
    if not predictions or not truth:
        return float(not predictions and not truth)
    true = {each["frame"]: each["bboxes"] for each in truth}
    seen: set[int] = set()
    total = 0.0
    for prediction in predictions:
        if problems(prediction, frames, seen) is None:
            seen.add(prediction["frame"])
            if prediction["frame"] in true:
                total += overlap(prediction["bboxes"], true[prediction["frame"]], frames.ratio)
    precision, recall = total / len(predictions), total / len(truth)
    return 2 * precision * recall / (precision + recall) if total else 0.0


def score_file(predictions: Path, truth: Path) -> dict[str, float]:
    """F of each video of a truth file, whose lines also have frames, width and height of the video.

    A video without a line has no predictions. InputError: a line of either cannot be read, or an id is
    repeated or unknown; `check` says all that is wrong.
    """
    wanted, found = _by_id(truth), _by_id(predictions)
    unknown = sorted(found.keys() - wanted.keys())
    if unknown:
        raise InputError(f"{predictions}: video_id {unknown[0]!r} is not in {truth}")
    scores = {}
    for name, line in wanted.items():
        try:
            frames = Frames(line["frames"], line["width"], line["height"], ratio_of(line))
        except (KeyError, ValueError) as error:
            raise InputError(f"{truth}: {name} lacks something: {error}") from error
        made = found[name]["predictions"] if name in found else []
        scores[name] = score_video(made, line["predictions"], frames)
    return scores


def _by_id(path: Path) -> dict[str, Mapping]:
    lines: dict[str, Mapping] = {}
    for number, line in read_lines(path):
        whole = isinstance(line, Mapping) and isinstance(line.get("predictions"), list)
        if not whole or not isinstance(line.get("video_id"), str):
            raise InputError(f"{path}, line {number}: expected an object with video_id and predictions")
        if line["video_id"] in lines:
            raise InputError(f"{path}, line {number}: video_id {line['video_id']!r} is there twice")
        lines[line["video_id"]] = line
    return lines
