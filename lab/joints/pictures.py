"""Pictures with known joints: rendered people, and skeletons drawn as OpenPose and DWPose draw them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from lab.joints.network import STRIDE
from lab.presenter.dataset import TRAINING_SEEDS
from lab.presenter.render.clip import HEIGHT, WIDTH, Clip
from lab.presenter.render.skeleton import HAND_EDGES, HAND_PALETTE, LIMBS, PALETTE

MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]  # right and left change places
SPREAD = 1.2  # cells: the sigma of a joint's bump in its heat map
FIRST = TRAINING_SEEDS + 5_000_000  # people that no other network of ours was trained on
OFFSET = 0.25  # pixels: the renderer halves a picture drawn at integer centres


@dataclass(frozen=True)
class Batch:
    """Pictures (N, H, W, 3) uint8 and heat maps (N, 18, H / 4, W / 4)."""

    pictures: Tensor
    heat: Tensor


@dataclass(frozen=True)
class Marked:
    """Pictures (N, H, W, 3) uint8 and their joints in pixels (N, 18, 2), NaN where there is none."""

    pictures: np.ndarray
    joints: np.ndarray


def people(count: int, first: int = FIRST, moments: int = 3) -> Marked:
    """Render that many people, each at some moments."""
    pictures, joints = [], []
    for seed in range(first, first + count):
        times = np.random.default_rng((seed, 5)).uniform(0, 8, moments)
        clip = Clip(seed)
        pictures.append(clip.frames(times))
        joints.append(clip.pose(times).body * WIDTH - OFFSET)
    return Marked(np.concatenate(pictures), np.concatenate(joints))


def photographed(marked: Marked, rng: np.random.Generator, count: int) -> Marked:
    """Draw some of the pictures: mirrored, moved, in another light, blurred, noisy or compressed."""
    chosen = rng.integers(0, len(marked.pictures), count)
    pairs = [_seen(marked.pictures[i], marked.joints[i], rng) for i in chosen]
    return Marked(*(np.stack(part) for part in zip(*pairs, strict=True)))


def drawn(rng: np.random.Generator, count: int) -> Marked:
    """Draw one person's skeletons anywhere, of any size and stroke, with and without legs, hands, faces."""
    pose = Clip(int(rng.integers(FIRST, FIRST + 1_000_000))).pose(rng.uniform(0, 40, count))
    pairs = [_drawn(body, hands, rng) for body, hands in zip(pose.body, pose.hands, strict=True)]
    return Marked(*(np.stack(part) for part in zip(*pairs, strict=True)))


def batch(marked: Marked) -> Batch:
    """Return pictures with a bump at each joint in its heat map."""
    return Batch(torch.from_numpy(marked.pictures), torch.from_numpy(heat_maps(marked)))


def heat_maps(marked: Marked) -> np.ndarray:
    """Return heat maps (N, 18, H / 4, W / 4) float32: a Gaussian bump where the joint is, if there is one."""
    height, width = (side // STRIDE for side in marked.pictures.shape[1:3])
    cells = (marked.joints + 0.5) / STRIDE - 0.5
    x, y = (cells[..., axis, None, None] for axis in (0, 1))
    squared = (np.arange(width) - x) ** 2 + (np.arange(height)[:, None] - y) ** 2
    return np.nan_to_num(np.exp(-squared / (2 * SPREAD**2)), nan=0.0).astype(np.float32)


def people_batches(first: int, size: int, marked: Marked) -> Iterator[Batch]:
    """Yield batches of rendered people from the one of that number on."""
    while True:
        yield batch(photographed(marked, np.random.default_rng((first, 21)), size))
        first += 1


def drawn_batches(first: int, size: int) -> Iterator[Batch]:
    """Yield batches of drawn skeletons from the one of that number on."""
    while True:
        yield batch(drawn(np.random.default_rng((first, 22)), size))
        first += 1


def _seen(picture: np.ndarray, joints: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() < 0.5:
        picture, joints = picture[:, ::-1], joints[MIRROR] * (-1, 1) + (WIDTH - 1, 0)
    scale, angle = rng.uniform(0.85, 1.15), rng.uniform(-4, 4)
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), angle, scale)
    turn[:, 2] += rng.uniform(-8, 8, 2)
    picture = cv2.warpAffine(
        np.ascontiguousarray(picture), turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT
    )
    joints = joints @ turn[:, :2].T + turn[:, 2]
    light = picture.astype(np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20)
    return _worn(light * rng.uniform(0.92, 1.08, 3), rng), joints


def _worn(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, shrink, add noise and compress, each now and then."""
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < 0.5:
        picture = picture + rng.standard_normal(picture.shape, np.float32) * rng.uniform(0.5, 5)
    picture = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR)
    return picture


def _drawn(body: np.ndarray, hands: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    body, hands = _figure(body, hands, rng)
    large = int(rng.choice([1, 2, 2, 3, 4]))  # drawn so much larger than it is seen
    canvas = np.zeros((HEIGHT * large, WIDTH * large, 3), np.uint8)
    thick = max(1, round(rng.uniform(0.008, 0.024) * WIDTH * large))
    dot = max(1, round(thick * rng.uniform(0.7, 1.3)))
    style = float(rng.choice([0.6, 0.6, 1.0]))
    at = [tuple(int(16 * each) for each in point * large) if ok else None
          for point, ok in zip(np.nan_to_num(body), ~np.isnan(body[:, 0]), strict=True)]  # fmt: skip
    tapered = rng.random() < 0.5
    for (a, b), colour in zip(LIMBS, PALETTE, strict=False):
        if at[a] and at[b]:
            _limb(canvas, body[[a, b]] * large, tuple(style * c for c in colour), thick, tapered)
    for point, colour in zip(at, PALETTE, strict=True):
        if point:
            cv2.circle(canvas, point, 16 * dot, colour, -1, cv2.LINE_AA, 4)
    _hands_and_face(canvas, body * large, hands * large, max(1, thick // 2), rng)
    picture = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = ((body > -2) & (body < (WIDTH + 2, HEIGHT + 2))).all(1)
    joints = np.where(inside[:, None], (body * large + 0.5) / large - 0.5, np.nan)
    return _worn(picture, rng), joints


def _figure(body: np.ndarray, hands: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return joints (18, 2) and hands (2, 21, 2) in pixels: a presenter with legs, limbs at random."""
    for hip, side in ((8, -1), (11, 1)):
        knee = body[hip] + _step(rng.normal(0, 0.35), 0.45)
        body[hip + 1], body[hip + 2] = knee, knee + _step(rng.normal(0, 0.35) + side * 0.05, 0.42)
    for shoulder, hand in ((2, 0), (5, 1)):
        if rng.random() < 0.5:  # any arm, beyond the presenter's gestures
            elbow = body[shoulder] + _step(rng.uniform(-3.14, 3.14), rng.uniform(0.15, 0.32))
            wrist = elbow + _step(rng.uniform(-3.14, 3.14), rng.uniform(0.12, 0.3))
            hands[hand] += wrist - body[shoulder + 2]
            body[shoulder + 1], body[shoulder + 2] = elbow, wrist
    size = WIDTH * np.exp(rng.uniform(np.log(0.35), np.log(1.25)))
    angle = rng.normal(0, 0.12)
    turn = size * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.15:
        turn[0] *= -1  # seen from behind
    centre = rng.uniform((0.3, 0.3), (0.7, 0.7)) * (WIDTH, HEIGHT) if size < 0.8 * WIDTH else (64, 96)
    middle = body[1] + (0, 0.3)
    body, hands = ((each - middle) @ turn.T + centre + rng.normal(0, 4, 2) for each in (body, hands))
    lost = rng.random(18) < (0.03 if rng.random() < 0.5 else 0.12)
    if rng.random() < 0.5:
        lost[[9, 10, 12, 13]] = True  # as bundled data has it
    body[lost] = np.nan
    return body, hands


def _step(angle: float, length: float) -> np.ndarray:
    return length * np.array([np.sin(angle), np.cos(angle)])


def _limb(canvas: np.ndarray, ends: np.ndarray, colour: tuple, thick: int, tapered: bool) -> None:
    if not tapered:
        a, b = (tuple(int(16 * each) for each in end) for end in ends)
        cv2.line(canvas, a, b, colour, thick, cv2.LINE_AA, 4)
        return
    length, angle = np.hypot(*(ends[1] - ends[0])), np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1]))
    centre = tuple(int(each) for each in ends.mean(0))
    polygon = cv2.ellipse2Poly(centre, (int(length / 2), max(1, thick)), int(angle), 0, 360, 5)
    cv2.fillConvexPoly(canvas, polygon, colour, cv2.LINE_AA)


def _hands_and_face(
    canvas: np.ndarray, body: np.ndarray, hands: np.ndarray, thick: int, rng: np.random.Generator
) -> None:
    for hand, wrist in zip(hands, (4, 7), strict=True):
        if rng.random() < 0.25 or np.isnan(body[wrist]).any():
            continue
        points = [tuple(int(16 * each) for each in point) for point in hand]
        for (a, b), colour in zip(HAND_EDGES, HAND_PALETTE, strict=True):
            cv2.line(canvas, points[a], points[b], colour, thick, cv2.LINE_AA, 4)
        for point in points:
            cv2.circle(canvas, point, 16 * thick, (0, 0, 255), -1, cv2.LINE_AA, 4)
    ears = body[[16, 17]]
    if rng.random() < 0.4 and not np.isnan(ears).any():
        centre, wide = ears.mean(0), np.abs(ears[1] - ears[0]).max() / 2
        for angle in np.linspace(0, np.pi, 17):
            x, y = centre + wide * np.array([np.cos(angle), 1.2 * np.sin(angle)])
            cv2.circle(canvas, (int(16 * x), int(16 * y)), 16 * thick, (255, 255, 255), -1, cv2.LINE_AA, 4)
        for x, y in centre + wide * rng.uniform((-0.7, -0.3), (0.7, 1.0), (30, 2)):
            cv2.circle(canvas, (int(16 * x), int(16 * y)), 16 * thick, (255, 255, 255), -1, cv2.LINE_AA, 4)
