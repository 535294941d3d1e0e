"""Make what can go wrong with a video, each at a strength that people see, and changes that do no harm."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from pipeline.video.reader import VideoWriter, read


@dataclass(frozen=True)
class Scene:
    """A clip (F, H, W, 3) uint8, and others of its shape.

    other_person: in the same or any motion; other_pose: the same person; other_engine: the same request made
    by another engine in fp32, if there is one. skeletons: frames of its skeleton video; faces: x, y, width
    and height of the face in each frame (F, 4). made: the same video made otherwise, by what it is called.
    """

    frames: np.ndarray
    other_person: np.ndarray
    other_pose: np.ndarray
    other_engine: np.ndarray | None = None
    skeletons: np.ndarray | None = None
    faces: np.ndarray | None = None
    made: Mapping[str, np.ndarray] = field(default_factory=dict)


class Kind(Enum):
    """HARMLESS: must pass whatever judges. LOOK: every frame shows it. MOMENT: some frames do, or each only
    beside its neighbours. TIME: each frame is right, but at a wrong time."""

    HARMLESS = "harmless"
    LOOK = "look"
    MOMENT = "moment"
    TIME = "time"


@dataclass(frozen=True)
class Defect:
    """A change of a clip, None if it cannot have it; name says its strength."""

    name: str
    change: Callable[[Scene], np.ndarray | None]
    kind: Kind

    @property
    def harmless(self) -> bool:
        """Return whether it must pass."""
        return self.kind is Kind.HARMLESS


def encoded_again(scene: Scene, crf: int | None = None) -> np.ndarray:
    """Write and read the clip as the pipeline does, at its default quality if no other is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.mp4"
        height, width = scene.frames.shape[1:3]
        with VideoWriter(path, width, height, 24, crf=crf) as writer:
            for frame in scene.frames:
                writer.write(frame)
        return read(path).frames


def blurred(scene: Scene) -> np.ndarray:
    """Blur by a Gaussian with a sigma of one pixel."""
    import cv2

    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in scene.frames])


def noisy(scene: Scene) -> np.ndarray:
    """Add Gaussian noise of 5 levels, other in each frame."""
    noise = np.random.default_rng(0).standard_normal(scene.frames.shape, np.float32) * 5
    return levels(scene.frames + noise)


def brighter(scene: Scene) -> np.ndarray:
    """Add 3 levels everywhere."""
    return levels(scene.frames + 3.0)


def flickering(scene: Scene) -> np.ndarray:
    """Add and subtract 3 levels in turns."""
    sign = np.where(np.arange(len(scene.frames)) % 2, 3.0, -3.0)
    return levels(scene.frames + sign[:, None, None, None])


def one_black(scene: Scene) -> np.ndarray:
    """Make the frame in the middle black."""
    frames = scene.frames.copy()
    frames[len(frames) // 2] = 0
    return frames


def frozen(scene: Scene) -> np.ndarray:
    """Repeat the first frame all the time."""
    return np.repeat(scene.frames[:1], len(scene.frames), 0)


def shuffled(scene: Scene) -> np.ndarray:
    """Put all frames in another order."""
    return scene.frames[np.random.default_rng(0).permutation(len(scene.frames))]


def backwards(scene: Scene) -> np.ndarray:
    """Play from the last frame to the first."""
    return scene.frames[::-1].copy()


def late(scene: Scene) -> np.ndarray:
    """Delay by one frame; the first is shown twice."""
    return np.concatenate([scene.frames[:1], scene.frames[:-1]])


def moved(scene: Scene) -> np.ndarray:
    """Move by one pixel to the right; the border is repeated."""
    return np.concatenate([scene.frames[:, :, :1], scene.frames[:, :, :-1]], 2)


def tinted(scene: Scene) -> np.ndarray:
    """Scale red up and blue down by 5 %."""
    return levels(scene.frames * np.array([1.05, 1.0, 0.95]))


def upside_down(scene: Scene) -> np.ndarray:
    """Flip top and bottom."""
    return scene.frames[:, ::-1].copy()


def half_size(scene: Scene) -> np.ndarray:
    """Shrink to half the resolution and enlarge again."""
    import cv2

    height, width = scene.frames.shape[1:3]
    small = [cv2.resize(f, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for f in scene.frames]
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in small])


DEFECTS = (
    Defect("encoded again", encoded_again, Kind.HARMLESS),
    Defect("another engine, fp32", lambda scene: scene.other_engine, Kind.HARMLESS),
    Defect("blur, sigma 1 pixel", blurred, Kind.LOOK),
    Defect("noise, 5 levels", noisy, Kind.LOOK),
    Defect("3 levels brighter", brighter, Kind.LOOK),
    Defect("flicker of 3 levels", flickering, Kind.MOMENT),
    Defect("one black frame", one_black, Kind.MOMENT),
    Defect("all frozen", frozen, Kind.TIME),
    Defect("order shuffled", shuffled, Kind.TIME),
    Defect("time reversed", backwards, Kind.TIME),
    Defect("one frame late", late, Kind.TIME),
    Defect("moved by 1 pixel", moved, Kind.LOOK),
    Defect("colours tinted by 5 %", tinted, Kind.LOOK),
    Defect("another person", lambda scene: scene.other_person, Kind.LOOK),
    Defect("another pose", lambda scene: scene.other_pose, Kind.LOOK),
    Defect("upside down", upside_down, Kind.LOOK),
    Defect("half the resolution", half_size, Kind.LOOK),
)


def levels(values: np.ndarray) -> np.ndarray:
    """Round to 8 bits."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
