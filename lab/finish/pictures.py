"""Pictures of known quality for the cover network: rendered people and procedural textures, degraded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np

from finish.fit import fitted
from lab.finish.degrade import COST, degrade, encoded, levels, quality
from lab.finish.stage import Stage
from lab.presenter.dataset import TRAINING_SEEDS
from pipeline.batch.dataset import VIDEO_SUFFIXES
from pipeline.video.reader import VideoReader, read_image

HELD_OUT = 600_000  # seeds from here on, below TRAINING_SEEDS: for figures, never for training
VERSIONS = 5  # of each picture in a batch
PICTURES, TEXTURES = 8, 3  # in a training batch, and how many of them show no people
DRAWN = 3 * PICTURES  # seeds that these are chosen from
SHAPES = ((192, 288), (216, 384), (256, 256), (360, 203), (384, 216), (480, 200))
TEXTURED = 0.25  # of the pictures show no people
MOST = 12  # frames of a video that stand for it: a long one shows no more than a short one


@dataclass(frozen=True)
class Graded:
    """Pictures (N, SIDE, SIDE, 3) uint8 and their true qualities (N,) float32."""

    pixels: np.ndarray
    quality: np.ndarray


def people_in(seed: int) -> tuple[tuple[int, int], int]:
    """Width and height of the picture of that seed, and how many people it shows; none is a texture."""
    random = np.random.default_rng((seed, 51))
    size = SHAPES[random.integers(len(SHAPES))]
    if random.random() < TEXTURED:
        return size, 0
    return size, 1 if size[0] <= size[1] else int(random.integers(1, 4))


def draw(seed: int, lids: float = 1.0) -> np.ndarray:
    """A flawless picture (H, W, 3) uint8: people whose eyes are that open, or a texture."""
    (size, people), random = people_in(seed), np.random.default_rng((seed, 53))
    if not people:
        return texture(random, size)
    return Stage(seed, size, people).picture(random.uniform(0, 30, people), lids=lids)


def texture(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Octaves of noise in two colours, with sharp-edged shapes and words on them; size is (width, height)."""
    width, height = size
    field = np.zeros((height, width), np.float32)
    for octave in range(int(random.integers(2, 7))):
        cells = random.random((3 * 2**octave, 4 * 2**octave), np.float32)
        field += cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC) * random.uniform(0.4, 0.8) ** octave
    field = (field - field.min()) / np.ptp(field)
    dark, light = random.uniform(0, 120, 3), random.uniform(90, 255, 3)
    picture = levels(dark + (light - dark) * field[..., None])
    for _ in range(int(random.integers(2, 9))):
        centre, colour = random.uniform(0, 1, 2) * size, tuple(int(c) for c in random.integers(0, 256, 3))
        place, kind = tuple(int(v) for v in centre), random.integers(3)
        if kind == 0:
            points = centre + random.normal(0, 0.2, (int(random.integers(3, 7)), 2)) * min(size)
            cv2.fillPoly(picture, [points.astype(np.int32)], colour, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(picture, place, int(random.uniform(3, 0.25 * min(size))), colour, -1, cv2.LINE_AA)
        else:
            word = "".join(chr(65 + n) for n in random.integers(0, 26, 6))
            cv2.putText(picture, word, place, 0, random.uniform(0.4, 1.4), colour, 2, cv2.LINE_AA)
    return picture


def random_strengths(random: np.random.Generator, face: bool = True) -> dict[str, float]:
    """None, one or two degradations of random strengths; closed eyes only where there is a face to see."""
    names = [name for name in COST if face or name != "eyes"]
    chosen = random.choice(names, random.choice(3, p=[0.12, 0.66, 0.22]), replace=False)
    return {str(name): 1.0 if name == "eyes" else float(random.uniform(0.05, 1)) for name in chosen}


def read_photos(folder: Path) -> list[np.ndarray]:
    """The pictures of a folder, and frames of its videos."""
    pictures = [path for path in sorted(folder.iterdir()) if path.suffix.lower() not in VIDEO_SUFFIXES]
    return [read_image(path) for path in pictures] + [frame for each in videos_in(folder) for frame in each]


def videos_in(folder: Path) -> list[list[np.ndarray]]:
    """For each video of a folder a frame of each second, MOST of each at most."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            with VideoReader(path) as reader:
                step = max(1, round(float(reader.fps)), -(-reader.info.frames // MOST))
                found.append([frame.copy() for n, frame in enumerate(reader) if n % step == 0])
    return found


def crop(photos: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Some part of one of the photos, mirrored or not, in one of the SHAPES."""
    random = np.random.default_rng((number, 54))
    photo = photos[random.integers(len(photos))]
    (width, height), (high, wide) = SHAPES[random.integers(len(SHAPES))], photo.shape[:2]
    scale = random.uniform(0.5, 1) * min(wide / width, high / height)
    w, h = max(1, int(width * scale)), max(1, int(height * scale))
    x, y = random.integers(wide - w + 1), random.integers(high - h + 1)
    part = fitted(photo[y : y + h, x : x + w], (width, height))
    return part[:, ::-1].copy() if random.random() < 0.5 else part


def graded(numbers: Iterable[int], seed: int, photos: Sequence[np.ndarray] = ()) -> Graded:
    """VERSIONS of each of those pictures: pristine, of one degradation in steps, of any.

    The steps of one degradation teach its order; half of all are encoded as videos are. photos: what pictures
    are parts of, instead of drawn; they are taken for pristine.
    """
    found, truths = [], []
    for number in numbers:
        random = np.random.default_rng((number, seed))
        own, other = (crop(photos, n) if photos else draw(n) for n in (number, number + 1))
        names = [name for name in COST if name != "eyes"]
        kind = names[random.integers(len(names))]
        steps = [{kind: float(s)} for s in np.sort(random.uniform(0.05, 1, 2))]
        face = not photos and people_in(number)[1] == 1
        versions = [{}, *steps, *(random_strengths(random, face) for _ in range(VERSIONS - 3))]
        for strengths in versions:
            base = draw(number, lids=0.0) if "eyes" in strengths else own
            picture = degrade(base, strengths, cv2.resize(other, base.shape[1::-1]), random)
            if random.random() < 0.5:
                picture = encoded(picture, random.uniform(80, 97))
            found.append(fitted(picture))
            truths.append(quality(strengths))
    return Graded(np.stack(found), np.array(truths, np.float32))


def training_batch(number: int, photos: Sequence[np.ndarray] = ()) -> Graded:
    """The batch of that number; always the same. It has more textures than other sets: they are harder.

    With photos, half of it are parts of them.
    """
    first = TRAINING_SEEDS + number * DRAWN
    by_people = sorted(range(first, first + DRAWN), key=lambda seed: people_in(seed)[1] > 0)
    if not photos:
        return graded([*by_people[:TEXTURES], *by_people[TEXTURES - PICTURES :]], 52)
    half = PICTURES // 2
    drawn = graded([by_people[0], *by_people[1 - half :]], 52)
    real = graded(range(first, first + half), 52, photos)
    return Graded(*(np.concatenate(pair) for pair in zip(astuple(drawn), astuple(real), strict=True)))
