"""Long videos made of real clips and photographs, with cuts, camera moves, sound and flaws; all of it known.

What the clips show, and where, was looked at by eye and is in footage.json, with their licences.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from finish.fit import fitted
from finish.framing import whole
from finish.pruning import WEIGHTS
from finish.sound import add_samples
from lab.finish.pictures import VIDEO_SUFFIXES
from pipeline.video.reader import VideoReader, VideoWriter, read_image

KNOWN = json.loads(Path(__file__).with_name("footage.json").read_text(encoding="utf-8"))
SIZE, FPS, SOUND_RATE = (640, 360), 25, 8000
WIDEST = 800  # pixels of a source at the most: memory
SHORT = 60  # frames: a part of less is shown once
SHOT, FLAW, FLAWS = (2.5, 7.0), 2.4, 3  # seconds of a shot, and of a flaw; flaws in a video


@dataclass(frozen=True)
class Part:
    """Frames (F, H, W, 3) uint8 of a source, and where what it shows is in each (F, 4), from 0 to 1.

    shows: face, body, or place, where nothing is to be followed and there are no boxes.
    """

    source: str
    shows: str
    frames: np.ndarray
    boxes: np.ndarray | None


@dataclass(frozen=True)
class Moment:
    """What a frame shows: a shot, how many frames after it began, and the flaw."""

    shot: int
    at: int
    flaw: str = ""


def read_parts(folder: Path, held_out: bool = False) -> list[Part]:
    """The parts of footage.json whose files are in a folder: those options were chosen on, or the others."""
    found = []
    for name, known in KNOWN.items():
        if known.get("held_out", False) == held_out and (folder / name).is_file():
            frames = _frames(folder / name)
            found += [_part(name, each, frames) for each in known["parts"]]
    return found


class Reel:
    """The video of a seed."""

    def __init__(self, seed: int, parts: Sequence[Part], seconds: float = 75) -> None:
        random = self._random = np.random.default_rng((seed, 81))
        self.seed, self.shots = seed, []
        moments: list[Moment] = []
        while len(moments) < seconds * FPS:
            part = parts[random.integers(len(parts))]
            if self.shots and part is self.shots[-1].part and len(parts) > 1:
                continue
            count = round(random.uniform(*SHOT) * FPS)
            if 1 < len(part.frames) < SHORT:  # to and fro, a walk would be a dance
                count = len(part.frames)
            moments += [Moment(len(self.shots), n) for n in range(count)]
            self.shots.append(_Shot(part, count, random))
        long, kinds = round(FLAW * FPS), random.choice(sorted(WEIGHTS), FLAWS, replace=False)
        for place, kind in enumerate(kinds):  # the first third of the video has none, and is what is repeated
            third = len(moments) * (2 + 2 * place) // 7
            first = third + int(random.integers(len(moments) // 7))
            moments = [*moments[:first], *self._spoilt(moments, first, long, str(kind)), *moments[first:]]
        self.moments = moments

    @property
    def cuts(self) -> list[int]:
        """Frames that begin a shot, or black."""
        seen = [(each.shot, each.flaw == "black") for each in self.moments]
        return [n for n, (a, b) in enumerate(zip(seen, seen[1:], strict=False), start=1) if a != b]

    @property
    def flaws(self) -> np.ndarray:
        """The flaw of each frame (N,), "" for none."""
        return np.array([each.flaw for each in self.moments])

    def subject(self, n: int) -> tuple[str, np.ndarray | None]:
        """What a frame shows, and its box in pixels (4,)."""
        moment = self.moments[n]
        shot = self.shots[moment.shot]
        return shot.part.shows, None if moment.flaw == "black" else shot.subject(moment.at)

    def truth(self, ratio: tuple[float, float]) -> list[dict]:
        """The largest box around the subject, or in the middle, for each frame without a flaw."""
        found, (width, height) = [], SIZE
        wide = min(width, height * ratio[0] / ratio[1])
        tall = wide * ratio[1] / ratio[0]
        for n in np.flatnonzero(self.flaws == ""):
            box = self.subject(n)[1]
            x, y = (width / 2, height / 2) if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            corner = np.clip([x - wide / 2, y - tall / 2], 0, [width - wide, height - tall])
            found.append({"frame": int(n), "bboxes": whole(np.array([*corner, wide]), ratio, SIZE)})
        return found

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB in their order."""
        random = np.random.default_rng((self.seed, 82))
        for moment in self.moments:
            if moment.flaw == "black":
                yield np.zeros((*SIZE[::-1], 3), np.uint8)
                continue
            shake = random.normal(0, 0.03, 2) if moment.flaw == "shaken" else np.zeros(2)
            picture = self.shots[moment.shot].picture(moment.at, shake)
            yield cv2.GaussianBlur(picture, (0, 0), 6) if moment.flaw == "blurred" else picture

    def write(self, path: Path) -> None:
        """The video as a file with a sound that comes and goes. OutputError."""
        t = np.arange(len(self.moments) * SOUND_RATE // FPS) / SOUND_RATE
        noise = np.random.default_rng((self.seed, 83)).standard_normal(len(t))
        wave = 0.1 * noise * np.clip(np.sin(t / 3), 0, 1) * (0.6 + 0.4 * np.sin(25 * t))
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            silent = Path(folder) / "silent.mp4"
            with VideoWriter(silent, *SIZE, FPS, preset="veryfast") as writer:
                for frame in self.frames():
                    writer.write(frame)
            add_samples(silent, (np.clip(wave, -1, 1) * 32767).astype(np.int16), SOUND_RATE, path)

    def _spoilt(self, moments: Sequence[Moment], first: int, long: int, kind: str) -> list[Moment]:
        """What is put in before a frame: shown in no other place, unless it is a repetition."""
        start = moments[first]
        if kind == "repeated":
            begin = int(self._random.integers(len(moments) // 5))
            return [Moment(each.shot, each.at, kind) for each in moments[begin : begin + long]]
        ahead = 0 if kind == "frozen" else 1
        return [Moment(start.shot, start.at + ahead * n, kind) for n in range(long)]


class _Shot:
    """A part seen through a camera that moves in a straight line, mirrored or not."""

    def __init__(self, part: Part, count: int, random: np.random.Generator) -> None:
        self.part, self._count, self._mirrored = part, count, random.random() < 0.5
        high, wide = part.frames.shape[1:3]
        self._whole = np.array([wide, high], float)
        most = min(wide / SIZE[0], high / SIZE[1])
        for _ in range(100):
            self._side = np.array(SIZE) * most * random.uniform(0.8, 1)
            self._ends = random.uniform(0, 1, (2, 2)) * (self._whole - self._side)
            if all(self._inside(at) for at in np.linspace(0, count - 1, 8).astype(int)):
                break

    def subject(self, at: int) -> np.ndarray | None:
        """Left, top, right, bottom (4,) in pixels of the video."""
        if self.part.boxes is None:
            return None
        box = self.part.boxes[self._frame(at)] * np.tile(self._whole, 2) - np.tile(self._corner(at), 2)
        left, top, right, bottom = box * np.tile(np.array(SIZE) / self._side, 2)
        return np.array(
            [SIZE[0] - right, top, SIZE[0] - left, bottom] if self._mirrored else [left, top, right, bottom]
        )

    def picture(self, at: int, shake: np.ndarray) -> np.ndarray:
        """The picture, its corner moved by parts of its size."""
        scale, corner = SIZE[0] / self._side[0], self._corner(at) + shake * self._side
        moved = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]], np.float32)
        seen = cv2.warpAffine(self.part.frames[self._frame(at)], moved, SIZE, borderMode=cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(seen[:, ::-1]) if self._mirrored else seen

    def _inside(self, at: int) -> bool:
        box = self.subject(at)
        return box is None or self.part.shows != "face" or (
            bool((box[:2] > 4).all()) and bool((box[2:] < np.array(SIZE) - 4).all())
        )  # fmt: skip

    def _frame(self, at: int) -> int:
        """To and fro."""
        last = len(self.part.frames) - 1
        return last - abs(last - at % (2 * last)) if last else 0

    def _corner(self, at: int) -> np.ndarray:
        part = min(1.0, at / max(1, self._count - 1))
        return self._ends[0] + (self._ends[1] - self._ends[0]) * part


def _frames(path: Path) -> np.ndarray:
    def small(picture: np.ndarray) -> np.ndarray:
        scale = min(1.0, WIDEST / max(picture.shape[:2]))
        return fitted(picture, tuple(round(side * scale) for side in picture.shape[1::-1]))

    if path.suffix.lower() not in {*VIDEO_SUFFIXES, ".gif"}:
        return small(read_image(path))[None]
    with VideoReader(path) as reader:
        return np.stack([small(frame) for frame in reader])


def _part(name: str, known: Mapping, frames: np.ndarray) -> Part:
    first, last = known["frames"]
    if not known["boxes"]:
        return Part(name, known["shows"], frames[first : last + 1], None)
    size, marked = known["size"], sorted((int(n), box) for n, box in known["boxes"].items())
    edges = np.array([box for _, box in marked]) / np.tile(size, 2)
    numbers = np.arange(first, last + 1)
    boxes = np.stack([np.interp(numbers, [n for n, _ in marked], edge) for edge in edges.T], 1)
    return Part(name, known["shows"], frames[first : last + 1], boxes)
