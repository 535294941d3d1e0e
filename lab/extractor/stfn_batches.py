"""Make what stfn is trained on: clips, harmless versions of them, and versions with visible defects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from bench.boxes import find_boxes
from bench.frame_metrics import psnr
from generators.presenter import AUTOENCODER_FILE
from generators.presenter.generator import WEIGHTS
from generators.presenter.load import load_autoencoder
from generators.presenter.model import Decode, Encode
from lab.extractor.cropped import cropped_scene
from lab.extractor.defects import (
    DEFECTS,
    Defect,
    Kind,
    Scene,
    blurred,
    brighter,
    encoded_again,
    half_size,
    late,
    levels,
    moved,
    noisy,
    tinted,
)
from lab.extractor.drawn import PLACES, face_places
from lab.extractor.stfn import HEIGHT, WIDTH
from lab.presenter.dataset import TRAINING_SEEDS
from lab.presenter.render.clip import FPS, Clip

# What a clip is trained to leave. 3 levels more everywhere cannot be told from another exposure without being
# touchy about everything: the check of the mean colour sees it.
HARMFUL = tuple(d for d in (*DEFECTS, *PLACES) if not d.harmless and d.change is not brighter)
HARD = (late, moved, tinted)  # drawn twice as often as others
UNSEEN = 42.0  # dB: nearer to the clip, a defect hardly shows (half the resolution of a soft one)
GRADED = (blurred, noisy, brighter, moved, tinted, half_size)  # a tenth of these is harmless
DRAWN = 4  # defects of each clip in a step
COARSE, CRF = 2, (17, 29)  # versions that are encoded more coarsely, and how
GENERATED = 0.5  # of rendered clips look as the presenter makes them
OFF = (0.03, 0.16)  # of their deviation, what latents may be off by: 51 to 31 dB of pixels
NEAR_SEEDS, NEAR_CRF = TRAINING_SEEDS + 700_000, ((17, 24), (24, 29))
FOOTAGE = 0.5  # of the batches are footage, where there is some
SIZES = ((WIDTH, HEIGHT), (192, 288), (256, 256), (320, 192))  # of its parts
STILL = 0.25  # of the clips are one picture all the time, as in the self-test of bench.similarity


@dataclass(frozen=True)
class Batch:
    """Clips (F, H, W, 3) uint8: the one to hold against, harmless versions, defective ones, another clip.

    compressed: encoded more coarsely. kinds: of the defects.
    """

    clip: Tensor
    harmless: list[Tensor]
    compressed: list[Tensor]
    defects: list[Tensor]
    kinds: list[Kind]
    other: Tensor


@dataclass(frozen=True)
class Near:
    """A clip as the presenter makes it, the same encoded more coarsely, and made of latents a little off.

    decibels: PSNR of each of the latter against the clip.
    """

    clip: Tensor
    compressed: list[Tensor]
    off: list[Tensor]
    decibels: list[float]


class Scenes(IterableDataset):
    """Endless batches; number n is always the same. footage: what cropped_scene takes parts of, if any."""

    def __init__(self, first: int, footage: Sequence[np.ndarray] = ()) -> None:
        self.first, self.footage = first, footage

    def __iter__(self) -> Iterator[Batch]:
        n = self.first
        while True:
            yield make_batch(n, self.footage)
            n += 1


def make_scene(seed: int, start: float, frames: int) -> Scene:
    """Render a clip, with another person in its motion and its person in another."""
    t = start + np.arange(frames) / FPS
    own, other = Clip(seed), seed + 250_000
    return Scene(
        own.frames(t),
        Clip(seed, identity_seed=other).frames(t, detail_seed=seed),
        Clip(other, identity_seed=seed).frames(t),
        faces=face_places(find_boxes(drawn) for drawn in own.skeletons(t)),
    )


def make_batch(number: int, footage: Sequence[np.ndarray] = ()) -> Batch:
    """Make the batch of that number: half of the clips are encoded, half of the defects come before that."""
    random = np.random.default_rng((number, 17))
    still, frames = random.random() < STILL, int(random.integers(8, 25))
    count = 1 if still else frames
    if len(footage) > 1 and random.random() < FOOTAGE:
        scene = cropped_scene(footage, random, count, SIZES[random.integers(len(SIZES))])
    else:
        scene = make_scene(TRAINING_SEEDS + 2 * number, random.uniform(0, 8), count)
        if random.random() < GENERATED:
            scene = _generated(scene)
    if still:
        faces = None if scene.faces is None else scene.faces.repeat(frames // 3, 0)
        parts = (scene.frames, scene.other_person, scene.other_pose)
        scene = Scene(*(part.repeat(frames // 3, 0) for part in parts), faces=faces)
    plain = replace(scene, frames=encoded_again(scene))
    drawn = _draw([d for d in HARMFUL if not still or d.kind is not Kind.TIME], random)
    made = [(_defective(defect, scene, plain, random), defect.kind) for defect in drawn]
    made = [(clip, kind) for clip, kind in made if clip is not None and _shows(clip, plain.frames)]
    sources = [scene if random.random() < 0.5 else plain for _ in range(COARSE)]
    coarse = [encoded_again(source, int(random.integers(*CRF))) for source in sources]
    return Batch(
        _seen(scene.frames if random.random() < 0.5 else plain.frames),
        [_seen(each) for each in _harmless(scene, plain, random)],
        [_seen(each) for each in coarse],
        [_seen(clip) for clip, _ in made],
        [kind for _, kind in made],
        _seen(scene.other_pose[:, ::-1, ::-1]),
    )


def make_near(number: int) -> Near:
    """Make the near clip of that number: latents off in patches that stay, or that change by frame."""
    random = np.random.default_rng((number, 23))
    t = random.uniform(0, 8) + np.arange(random.integers(8, 17)) / FPS
    encode, decode = _autoencoder()
    with torch.inference_mode():
        latents = encode(torch.from_numpy(Clip(NEAR_SEEDS + number).frames(t)))
        frames = decode(latents).numpy()
        off = [decode(latents + _patches(latents, random)).numpy() for _ in range(3)]
    scene = Scene(frames, frames, frames)
    return Near(
        _seen(frames if random.random() < 0.5 else encoded_again(scene)),
        [_seen(encoded_again(scene, int(random.integers(*crf)))) for crf in NEAR_CRF],
        [_seen(each) for each in off],
        [float(psnr(each.astype(np.float32) - frames)) for each in off],
    )


def _patches(latents: Tensor, random: np.random.Generator) -> Tensor:
    """Return what to add to latents (F, C, H, W): patches of 1 to 4 places, of each frame and of all."""
    frames, channels, *places = latents.shape
    patch = int(random.integers(1, 5))

    def noise(count: int) -> Tensor:
        small = (count, channels, *(-(-side // patch) for side in places))
        drawn = torch.from_numpy(random.standard_normal(small, np.float32))
        return F.interpolate(drawn, places)

    changing, lasting = noise(frames), noise(1)
    amount, share = random.uniform(*OFF), random.uniform(0, 1)
    return 1.4 * amount * ((1 - share) * changing + share * lasting)


def _draw(defects: list[Defect], random: np.random.Generator) -> list[Defect]:
    weights = np.array([2.0 if defect.change in HARD else 1.0 for defect in defects])
    return [defects[i] for i in random.choice(len(defects), DRAWN, False, weights / weights.sum())]


def _harmless(scene: Scene, plain: Scene, random: np.random.Generator) -> list[np.ndarray]:
    """Return the clip encoded again, or noisy below a level, or with a tenth of a defect."""
    clip = plain.frames
    noise = [random.normal(0, random.uniform(0.2, 1.2), clip.shape) for _ in range(2)]
    graded = GRADED[random.integers(len(GRADED))](plain)
    return [
        encoded_again(plain) if random.random() < 0.5 else levels(clip + noise[0]),
        encoded_again(replace(scene, frames=levels(scene.frames + noise[1]))),
        levels(clip + 0.1 * (graded.astype(np.float32) - clip)),
    ]


def _defective(defect: Defect, scene: Scene, plain: Scene, random: np.random.Generator) -> np.ndarray | None:
    """Return the clip with the defect: before it was encoded, as a bad generator makes it, or after.

    None: it cannot have it.
    """
    if random.random() < 0.5:
        return defect.change(plain)
    changed = defect.change(scene)
    return None if changed is None else encoded_again(replace(scene, frames=changed))


def _seen(clip: np.ndarray) -> Tensor:
    """Bring a clip to the network's size, as the description in stfn.json says."""
    if clip.shape[1:3] != (HEIGHT, WIDTH):
        clip = np.stack([Image.fromarray(f).resize((WIDTH, HEIGHT), Image.Resampling.BOX) for f in clip])
    return torch.from_numpy(np.ascontiguousarray(clip))


def _shows(clip: np.ndarray, before: np.ndarray) -> bool:
    return psnr(clip.astype(np.float32) - before) < UNSEEN


def _generated(scene: Scene) -> Scene:
    """Bring a scene to what the presenter makes of its latents."""
    encode, decode = _autoencoder()
    with torch.inference_mode():
        parts = (scene.frames, scene.other_person, scene.other_pose)
        made = [decode(encode(torch.from_numpy(part))).numpy() for part in parts]
    return Scene(*made, faces=scene.faces)


@cache
def _autoencoder() -> tuple[Encode, Decode]:
    network = load_autoencoder(WEIGHTS / AUTOENCODER_FILE)
    return Encode(network), Decode(network)
