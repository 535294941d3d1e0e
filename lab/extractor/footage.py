"""Make scenes of camera footage for the sensitivity table: clips of a folder, with their faces if listed."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

import numpy as np

from bench.video_folders import videos_in
from engines.errors import InputError
from lab.extractor.defects import Scene
from pipeline.video.reader import VideoReader

FACES = "faces.csv"  # name,x,y,width,height: from brows to chin and ear to ear, as parts of the first frame
SHORT_SIDE = 256  # pixels; larger footage is made smaller
SEARCH = 0.08  # of the longer side that a face moves from frame to frame at most
MARK = (255, 0, 170)  # what skeletons draw eyes and ears in


def scenes_of_footage(folder: Path, most: int) -> list[Scene]:
    """Return a scene of at most so many frames for each video of a folder. InputError."""
    faces = _read_faces(folder / FACES)
    clips = {name: beginning(path, most, SHORT_SIDE) for name, path in videos_in(folder).items()}
    names = list(clips)
    scenes = []
    for number, (name, frames) in enumerate(clips.items()):
        other = clips[names[(number + 1) % len(names)]]
        person = np.resize(np.stack([_resized(f, frames.shape[2:0:-1]) for f in other]), frames.shape)
        place = track(frames, faces[name]) if name in faces else None
        marked = None if place is None else marks(place, frames.shape[1:3])
        pose = np.roll(frames, len(frames) // 2, 0)
        scenes.append(Scene(frames, person, pose, faces=place, skeletons=marked))
    return scenes


def track(frames: np.ndarray, part: tuple[float, ...]) -> np.ndarray:
    """Return x, y, width, height (F, 4) in pixels of what is at a part of the first frame, by correlation."""
    import cv2

    height, width = frames.shape[1:3]
    x, y, w, h = (round(p * size) for p, size in zip(part, (width, height) * 2, strict=True))
    wanted, reach = frames[0, y : y + h, x : x + w], round(SEARCH * max(height, width))
    found = []
    for frame in frames:
        left, top = max(0, x - reach), max(0, y - reach)
        near = frame[top : y + h + reach, left : x + w + reach]
        dx, dy = cv2.minMaxLoc(cv2.matchTemplate(near, wanted, cv2.TM_CCOEFF_NORMED))[3]
        x, y = left + dx, top + dy
        found.append((x, y, w, h))
    return np.array(found, float)


def marks(faces: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw skeleton frames (F, height, width, 3) with eyes and ears alone, for bench/boxes.py to find."""
    skeletons = np.zeros((len(faces), *size, 3), np.uint8)
    for frame, (x, y, w, _) in zip(skeletons, faces.astype(int), strict=True):
        margin = round(0.03 * size[1])
        frame[y + margin : y + margin + 2, max(0, x + margin) : max(x + margin + 2, x + w - margin)] = MARK
    return skeletons


def _read_faces(path: Path) -> dict[str, tuple[float, ...]]:
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return {
                line["name"]: tuple(float(line[key]) for key in ("x", "y", "width", "height"))
                for line in csv.DictReader(lines)
            }
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: expected lines name,x,y,width,height with parts of the frame") from error


def beginning(path: Path, most: int, short_side: int) -> np.ndarray:
    """Read the first frames of a video, see shrunk."""
    with VideoReader(path) as reader:
        return np.stack([shrunk(frame, short_side) for frame in islice(reader, most)])


def shrunk(frame: np.ndarray, short_side: int) -> np.ndarray:
    """Make a frame smaller if its shorter side has more pixels than that, and its width and height even."""
    scale = min(1.0, short_side / min(frame.shape[:2]))
    return _resized(frame, [round(scale * length) // 2 * 2 for length in frame.shape[1::-1]])


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    return cv2.resize(frame, tuple(size), interpolation=cv2.INTER_AREA)
