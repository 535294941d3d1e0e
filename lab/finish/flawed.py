"""Short videos whose frames are flawed now and then, as real ones are; how much is known for each frame."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from lab.finish.degrade import COST, degrade, quality
from lab.finish.stage import Stage
from pipeline.video.reader import VideoWriter

SIZES, FPS, SECONDS = ((192, 288), (256, 256), (384, 216)), 12, 4
EPISODES = (3, 5)  # flaws in a video, a third of a second to one and a half
FADED = 0.75  # of the videos begin with one: focus that is sought, light that is set, a scene that fades in


class FlawedVideo:
    """The video of a seed."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng((seed, 71))
        self.size, self.count = SIZES[random.integers(len(SIZES))], FPS * SECONDS
        people = 1 if self.size[0] <= self.size[1] else int(random.integers(1, 4))
        self._stage, self._other = Stage(seed, self.size, people), Stage(seed + 1, self.size, 1)
        self._start = random.uniform(0, 20, people)
        self.strengths = list(self._draw_strengths(people, random))

    @cached_property
    def quality(self) -> np.ndarray:
        """What each frame is worth (F,), 0 to 1."""
        return np.array([quality(each) for each in self.strengths])

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB in their order."""
        other, random = self._other.picture(np.zeros(1)), np.random.default_rng(self._stage.seed)
        for n, strengths in enumerate(self.strengths):
            lids = 1 - strengths.get("eyes", 0.0)
            picture = self._stage.picture(self._start + n / FPS, lids=lids)
            yield degrade(picture, strengths, cv2.flip(other, 1), random)

    def write(self, path: Path) -> None:
        """The video as a file. OutputError."""
        with VideoWriter(path, *self.size, FPS) as writer:
            for frame in self.frames():
                writer.write(frame)

    def _draw_strengths(self, people: int, random: np.random.Generator) -> Iterator[dict[str, float]]:
        """By frame: each episode swells and goes; one at the beginning starts at its worst."""
        t = np.arange(self.count) / FPS
        kinds = [name for name in COST if name != "eyes"]
        tracks = {name: np.zeros(self.count) for name in COST}
        for n in range(random.integers(EPISODES[0], EPISODES[1] + 1)):
            length, peak = random.uniform(0.33, 1.5), random.uniform(0.25, 1.0)
            middle = 0.0 if n == 0 and random.random() < FADED else random.uniform(0.5, SECONDS)
            track = tracks[kinds[random.integers(len(kinds))]]
            np.maximum(track, peak * np.clip(1.2 - np.abs(t - middle) / length, 0, 1), out=track)
        if people == 1:
            for blink in random.uniform(0, SECONDS, 2):
                tracks["eyes"][np.abs(t - blink) < 0.15] = 1.0
        for n in range(self.count):
            yield {name: float(track[n]) for name, track in tracks.items() if track[n] > 0}
