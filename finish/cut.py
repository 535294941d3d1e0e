"""Cut-downs: the predicted frames of a video, cut to their boxes, as an mp4 with its sound."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engines.errors import InputError
from finish.predictions import Frames, faults
from finish.sound import add_sound, has_sound
from pipeline.video.reader import VideoReader, VideoWriter


def cut(video: Path, predictions: Sequence[Mapping], ratio: tuple[float, float], out: Path) -> int:
    """Write the frames that predictions name, in their boxes, to out; returns how many there are.

    All have the size of the widest box, even numbers of pixels; sound comes along where there is some.
    InputError: a damaged video, or predictions that are faulty or none. OutputError.
    """
    with VideoReader(video) as reader, tempfile.TemporaryDirectory(prefix=".cut-", dir=out.parent) as folder:
        frames = Frames(reader.info.packets, reader.width, reader.height, ratio)
        if fault := next(faults(predictions, frames), None):
            raise InputError(f"{video}: {fault}")
        if not predictions:
            raise InputError(f"{video}: there is nothing to cut out, its predictions are empty")
        boxes = {each["frame"]: each["bboxes"] for each in predictions}
        wide = max(box[2] for box in boxes.values())
        size = even(wide), even(wide * ratio[1] / ratio[0])
        silent = Path(folder) / "silent.mp4"
        with VideoWriter(silent, *size, reader.fps) as writer:
            for number, frame in enumerate(reader):
                if number in boxes:
                    writer.write(cropped(frame, boxes[number], ratio, size))
        if has_sound(video):
            spans = [(a / float(reader.fps), b / float(reader.fps)) for a, b in runs(sorted(boxes))]
            add_sound(silent, video, spans, out)
        else:
            silent.replace(out)
    return len(boxes)


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


def even(length: float) -> int:
    """The nearest even number of pixels, 2 at least."""
    return max(2, 2 * round(length / 2))
