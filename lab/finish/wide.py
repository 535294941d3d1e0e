"""Long wide clips with idle and lively stretches, cuts, a restless camera and sound; all of it known."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from finish.framing import framed
from finish.sound import add_samples
from lab.finish.stage import Person, Stage
from lab.presenter.render.motion import Noise
from pipeline.video.reader import VideoWriter

SIZE, FPS, SOUND_RATE = (480, 216), 12, 8000
AROUND = 1.14  # the stage beyond the picture, so that the camera may move
IDLE, FIDGET = 0.04, 0.25  # speed of people who only stand there, and who shift about, beside lively ones
QUIET = 0.1  # of the clips have no lively stretch
SPOILT, BLUR = 0.15, 3.0  # of the stretches are out of focus, by so many pixels
# What is to be heard: syllables with the lively stretches, syllables at any other time, or a hum alone.
SOUNDS, SHARES = ("with", "against", "none"), (0.45, 0.3, 0.25)


@dataclass(frozen=True)
class Stretch:
    """Frames first to last (not included) in which some people of the stage are lively.

    spoilt: out of focus, and so no highlight.
    """

    first: int
    last: int
    leads: tuple[int, ...]
    spoilt: bool


class WideClip:
    """The clip of a seed: frames one by one, sound, and the truth on what stands out."""

    def __init__(self, seed: int, seconds: int = 60) -> None:
        random = self._random = np.random.default_rng((seed, 61))
        self.seed, self.count = seed, seconds * FPS
        ends = np.sort(random.uniform(0.15, 0.85, random.integers(0, 3))) * self.count
        ends = [int(end) for end in ends]
        self.shots = list(zip([0, *ends], [*ends, self.count], strict=True))
        canvas = tuple(round(side * AROUND) for side in SIZE)
        self.stages = [
            Stage(seed * 8 + n, canvas, int(random.integers(2, 5)), seconds) for n in range(len(self.shots))
        ]
        self.stretches = [] if random.random() < QUIET else list(self._stretches())
        self._speed = [self._speeds(n) for n in range(len(self.shots))]
        self._shake = Noise(random, 2, 0.4, 2.5), random.uniform(0.0, 2.5)  # pixels
        self._pan = Noise(random, 2, 0.01, 0.05)

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB in their order."""
        for stage, (first, last), speeds in zip(self.stages, self.shots, self._speed, strict=True):
            moments = np.cumsum(speeds, 1) / FPS
            for n in range(first, last):
                picture = stage.picture(moments[:, n - first], lights=n / FPS)
                x, y = self._views[n] + self._shakes[n]
                moved = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
                picture = cv2.warpAffine(picture, moved, SIZE, borderMode=cv2.BORDER_REPLICATE)
                spoilt = any(each.first <= n < each.last for each in self.stretches if each.spoilt)
                yield cv2.GaussianBlur(picture, (0, 0), BLUR) if spoilt else picture

    def truth(self, ratio: tuple[float, float]) -> list[dict]:
        """Predictions that are right: the lively people's box in each frame, the camera's shake left out."""
        found = []
        for stretch in (each for each in self.stretches if not each.spoilt):
            n = next(i for i, (first, last) in enumerate(self.shots) if first <= stretch.first < last)
            moments = np.cumsum(self._speed[n], 1) / FPS
            part = slice(stretch.first - self.shots[n][0], stretch.last - self.shots[n][0])
            each = [self.stages[n].people[lead].box(moments[lead, part]) for lead in stretch.leads]
            subject = np.concatenate([np.min(each, 0)[:2], np.max(each, 0)[2:]])
            frames = np.arange(stretch.first, stretch.last)
            boxes = framed(subject - np.tile(self._views[frames], 2), ratio, SIZE)
            found += [{"frame": int(f), "bboxes": [float(v) for v in box]}
                      for f, box in zip(frames, boxes, strict=True)]  # fmt: skip
        return found

    def sound(self) -> np.ndarray:
        """Samples (N,) int16 at SOUND_RATE: a hum, two bangs, and syllables as one of SOUNDS says."""
        random = np.random.default_rng((self.seed, 62))
        t = np.arange(self.count * SOUND_RATE // FPS) / SOUND_RATE
        level, kind = np.full(len(t), 0.01), random.choice(SOUNDS, p=SHARES)
        spoken = {"with": [(each.first, each.last) for each in self.stretches], "none": []}
        starts = random.uniform(0, 0.9 * self.count, 3).astype(int)
        spoken["against"] = [(start, start + 5 * FPS) for start in starts]
        for first, last in spoken[str(kind)]:
            part = slice(first * SOUND_RATE // FPS, last * SOUND_RATE // FPS)
            level[part] += random.uniform(0.04, 0.2) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t[part]))
        for bang in random.uniform(0, t[-1], 2):
            level += 0.25 * np.exp(-np.abs(t - bang) / 0.1)
        wave = level * random.standard_normal(len(t)) + random.uniform(0, 0.05) * np.sin(2 * np.pi * 120 * t)
        return (np.clip(wave, -1, 1) * 32767).astype(np.int16)

    def write(self, path: Path) -> None:
        """The clip as a video with its sound. OutputError."""
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            silent = Path(folder) / "silent.mp4"
            with VideoWriter(silent, *SIZE, FPS, preset="veryfast") as writer:
                for frame in self.frames():
                    writer.write(frame)
            add_samples(silent, self.sound(), SOUND_RATE, path)

    @cached_property
    def _views(self) -> np.ndarray:
        """Where the picture's corner lies on the stage in each frame (count, 2), without the shake."""
        room = np.array(SIZE) * (AROUND - 1)
        offset = np.concatenate([np.tile(self._random.uniform(0.2, 0.8, 2), (last - first, 1))
                                 for first, last in self.shots])  # fmt: skip
        return room * np.clip(offset + 0.2 * self._pan(np.arange(self.count) / FPS), 0.1, 0.9)

    @cached_property
    def _shakes(self) -> np.ndarray:
        noise, size = self._shake
        return size * noise(np.arange(self.count) / FPS)

    def _stretches(self) -> Iterator[Stretch]:
        """In each shot, three to seven seconds long, eight apart at least."""
        random = self._random
        for n, (first, last) in enumerate(self.shots):
            at = first + FPS * random.uniform(3, 8)
            while at + 4 * FPS < last - FPS:
                stop = min(at + FPS * random.uniform(3, 7), last - FPS)
                people = len(self.stages[n].people)
                lead = int(random.integers(people))
                pair = (lead, lead + 1) if random.random() < 0.25 and lead + 1 < people else (lead,)
                yield Stretch(int(at), int(stop), self._from_the_left(n, pair), random.random() < SPOILT)
                at = stop + FPS * random.uniform(8, 30)

    def _from_the_left(self, n: int, places: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers of the people who stand at those places."""

        def left(number: int) -> float:
            person: Person = self.stages[n].people[number]
            return person.origin[0]

        order = sorted(range(len(self.stages[n].people)), key=left)
        return tuple(order[place] for place in places)

    def _speeds(self, n: int) -> np.ndarray:
        """How fast each person of a shot lives in each of its frames (P, F)."""
        first, last = self.shots[n]
        speeds = np.full((len(self.stages[n].people), last - first), IDLE)
        for row in speeds:
            at = int(self._random.uniform(0, last - first))
            row[at : at + 3 * FPS] = FIDGET
        for stretch in self.stretches:
            if first <= stretch.first < last:
                speeds[list(stretch.leads), stretch.first - first : stretch.last - first] = 1.0
        return speeds
