"""Render clips of a talking presenter: frames, skeletons, a reference image in another gesture.

The renderer is the presenter generator's training data and its truth. A clip is a pure function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from lab.presenter.render.backdrop import add_lights, draw_wall
from lab.presenter.render.brush import Brush
from lab.presenter.render.figure import draw_figure
from lab.presenter.render.identity import Identity, random_identity
from lab.presenter.render.motion import Motion, Pose
from lab.presenter.render.skeleton import draw_skeleton
from lab.presenter.render.talk import random_talk

WIDTH, HEIGHT, FPS = 128, 192, 24
SUPERSAMPLE = 2
REFERENCE_TIME = -1.0  # seconds; a moment before the clip begins


@dataclass(frozen=True)
class Clip:
    """What one seed shows; times are in seconds from the clip's first frame.

    identity_seed: take the person and place of another seed. width, height: in pixels, 2 to 3.
    """

    seed: int
    identity_seed: int | None = None
    width: int = WIDTH
    height: int = HEIGHT

    @cached_property
    def who(self) -> Identity:
        """The person and the place."""
        return random_identity(self.seed if self.identity_seed is None else self.identity_seed)

    @cached_property
    def motion(self) -> Motion:
        """The movement."""
        return Motion(self.seed, self.who.build)

    @cached_property
    def wall(self) -> np.ndarray:
        """The backdrop without its lights (H, W, 3) uint8."""
        return draw_wall(self.who, self.width, self.height)

    def times(self, frames: int) -> np.ndarray:
        """The first frames' times (frames,)."""
        return np.arange(frames) / FPS

    def frames(self, t: np.ndarray, detail_seed: int | None = None) -> np.ndarray:
        """Pictures (F, H, W, 3) uint8 RGB at times t; detail_seed redraws what inputs do not determine."""
        talk = random_talk(self.seed if detail_seed is None else detail_seed, t)
        pose = self.motion.at(t)
        size = (self.width * SUPERSAMPLE, self.height * SUPERSAMPLE)
        out = np.empty((len(t), self.height, self.width, 3), np.uint8)
        for i in range(len(t)):
            canvas = cv2.resize(add_lights(self.wall, self.who, talk.lights[i]), size)
            draw_figure(Brush(canvas), self.who, pose, talk, i)
            out[i] = cv2.resize(canvas, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return out

    def skeletons(self, t: np.ndarray) -> np.ndarray:
        """Skeleton frames (F, H, W, 3) uint8 RGB at times t."""
        pose = self.pose(t)
        return np.stack(
            [draw_skeleton(b, h, self.width, self.height) for b, h in zip(pose.body, pose.hands, strict=True)]
        )

    def reference(self) -> np.ndarray:
        """The person in another gesture (H, W, 3) uint8."""
        return self.frames(np.array([REFERENCE_TIME]))[0]

    def pose(self, t: np.ndarray) -> Pose:
        """Key points at times t."""
        return self.motion.at(t)

    def determined(self, t: np.ndarray, redraws: int = 4, tolerance: int = 6) -> np.ndarray:
        """Pixels (F, H, W) bool that inputs determine: unchanged by every redraw of the other detail."""
        truth = self.frames(t).astype(np.int16)
        steady = np.ones(truth.shape[:3], np.uint8)
        for n in range(redraws):
            other = self.frames(t, detail_seed=self.seed + 7919 * (n + 1))
            steady &= (np.abs(other - truth).max(-1) <= tolerance).astype(np.uint8)
        kernel = np.ones((3, 3), np.uint8)
        return np.stack([cv2.erode(m, kernel) for m in steady]).astype(bool)
