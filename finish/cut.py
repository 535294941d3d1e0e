"""Cut-downs: the predicted frames of a video, cut to their boxes, as an mp4 with its sound."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engines.errors import InputError
from finish.predictions import Frames, faults, short
from finish.sound import add_sound, channels_of
from pipeline.video.info import MAX_PIXELS, VideoInfo, too_large
from pipeline.video.reader import VideoReader, VideoWriter


def cut(video: Path, predictions: Sequence[Mapping], ratio: tuple[float, float], out: Path) -> int:
    """Write the frames that predictions name, in their boxes, to out; returns how many there are.

    All have the size of the widest box, even numbers of square pixels, and are shown as long as in the video:
    at a variable rate, one that lasts is repeated. Sound comes along where there is some. InputError: a
    damaged video, or predictions that are faulty or none. OutputError.
    """
    with VideoReader(video) as reader, tempfile.TemporaryDirectory(prefix=".cut-", dir=out.parent) as folder:
        info = reader.info
        _check(video, predictions, info, ratio)
        boxes = {each["frame"]: each["bboxes"] for each in predictions}
        rate = info.times.densest() if info.variable_rate else info.fps
        begins = info.begins
        copies, spans = {}, []
        for first, last in runs(sorted(boxes)):
            shown = repeats(begins[first : last + 1], float(rate))
            copies.update(zip(range(first, last), shown, strict=True))
            spans.append((begins[first], begins[first] + sum(shown) / float(rate)))
        wide, aspect = max(box[2] for box in boxes.values()), float(info.pixel_aspect)
        size = even(wide * max(1, aspect)), even(wide * ratio[1] / ratio[0] * max(1, 1 / aspect))
        if size[0] * size[1] > MAX_PIXELS:
            raise too_large(video, *size, MAX_PIXELS)
        silent = Path(folder) / "silent.mp4"
        with VideoWriter(silent, *size, rate) as writer:
            for number, frame in enumerate(reader):
                for _ in range(copies.get(number, 0)):
                    writer.write(cropped(frame, boxes[number], ratio, size))
            if reader.info.frames < info.frames:  # as decoding told
                _check(video, predictions, reader.info, ratio)
        if channels := channels_of(video):
            add_sound(silent, video, channels, spans, out)
        else:
            silent.replace(out)
    return sum(copies.values())


def repeats(begins: Sequence[float], rate: float) -> list[int]:
    """How often each frame of a run is shown at a constant rate, to last as long; the run has one at least.

    begins: when each frame begins, and the last one ends, in seconds.
    """
    shown = np.diff(np.rint((np.asarray(begins) - begins[0]) * rate)).astype(int).tolist()
    return shown if any(shown) else [1, *shown[1:]]


def _check(video: Path, predictions: Sequence[Mapping], info: VideoInfo, ratio: tuple[float, float]) -> None:
    """Raise InputError for the first fault of predictions, or for none."""
    if fault := next(faults(predictions, Frames(info.frames, info.width, info.height, ratio)), None):
        raise InputError(f"{video}: {fault}")
    if not predictions:
        raise InputError(f"{video}: there is nothing to cut out, its predictions are empty")


def cropped(
    frame: np.ndarray, box: Sequence[float], ratio: tuple[float, float], size: tuple[int, int]
) -> np.ndarray:
    """A box x, y, w of a frame (H, W, 3) uint8, scaled to a size (width, height)."""
    from PIL import Image

    (x, y, wide), (height, width) = box, frame.shape[:2]
    right, bottom = min(width, x + wide), min(height, y + wide * ratio[1] / ratio[0])
    edges = (max(0.0, x), max(0.0, y), right, bottom)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, box=edges))


def runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """First and last (not included) of each run of ascending numbers without a gap."""
    ends = [n for n, frame in enumerate(frames) if n and frame != frames[n - 1] + 1]
    return [(frames[a], frames[b - 1] + 1) for a, b in zip([0, *ends], [*ends, len(frames)], strict=True)]


def file_name(name: str) -> str:
    """The name of the cut-down of an id. InputError: no file can have it."""
    try:
        fits = len(f"{name}.mp4".encode()) <= 255
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise InputError(f"video_id {short(name)}: no file can have this name; cut it under another id")
    return f"{name}.mp4"


def even(length: float) -> int:
    """The nearest even number of pixels, 2 at least."""
    return max(2, 2 * round(length / 2))
