"""Make training scenes of camera footage: parts of videos and of photographs under a moving camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lab.extractor.defects import Scene
from lab.extractor.footage import beginning, shrunk
from pipeline.batch.dataset import VIDEO_SUFFIXES
from pipeline.video.reader import read_image

LONGEST = 240  # frames that are kept of a video
SHORT_SIDE = 360  # pixels; larger footage is made smaller
LEAST = 0.5  # of what fits, the smallest part that is taken
PACES = (1, 1, 2, 3)  # every frame, every second, ...


def read_footage(folder: Path) -> list[np.ndarray]:
    """Return the videos of a folder (F, H, W, 3) uint8, and its pictures as videos of one frame, in order."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            found.append(beginning(path, LONGEST, SHORT_SIDE))
        else:
            found.append(shrunk(read_image(path), SHORT_SIDE)[None])
    return found


def cropped_scene(
    footage: Sequence[np.ndarray], random: np.random.Generator, frames: int, size: tuple[int, int]
) -> Scene:
    """Return a part of one of the videos at a random pace, of another one, and of the same one elsewhere.

    size: width and height. A photograph is shown by a camera that moves over it.
    """
    own, other = random.choice(len(footage), 2, replace=False)
    clip, pose = (_part(footage[own], random, frames, size) for _ in range(2))
    return Scene(clip, _part(footage[other], random, frames, size), pose)


def _part(video: np.ndarray, random: np.random.Generator, frames: int, size: tuple[int, int]) -> np.ndarray:
    count, height, width = video.shape[:3]
    scale = random.uniform(LEAST, 1) * min(width / size[0], height / size[1])
    wide, high = (int(scale * side) for side in size)
    room = np.array([width - wide, height - high])
    pace = min(PACES[random.integers(len(PACES))], max(1, count // frames))
    first = random.integers(max(1, count - pace * (frames - 1)))
    ends = random.uniform(0, 1, (2, 2)) * room
    if count > 1:
        ends[1] = ends[0]
    taken = []
    for number, (x, y) in enumerate(np.linspace(*ends, frames).astype(int)):
        frame = video[min(count - 1, first + pace * number), y : y + high, x : x + wide]
        taken.append(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    return np.stack(taken)
