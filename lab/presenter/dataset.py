"""Endless training data, rendered as needed: batch n is always the same, also for a resumed run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lab.presenter.render.clip import FPS, HEIGHT, WIDTH, Clip
from lab.presenter.render.motion import hands_and_face

TRAINING_SEEDS = 1_000_000  # seeds below are for sample and held-out data, never for training


class Pictures(IterableDataset):
    """Batches (24, H, W, 3) uint8 for the autoencoder: frames of six clips, and a quarter skeletons."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[Tensor]:
        cv2.setNumThreads(1)
        for n in batch_numbers(self.first):
            pictures = []
            for k in range(6):
                clip = Clip(TRAINING_SEEDS + 6 * n + k)
                t = np.random.default_rng((n, k)).uniform(0, 8, 4)
                pictures += [clip.frames(t[:3]), clip.skeletons(t[3:])]
            yield torch.from_numpy(np.concatenate(pictures))


class OverlapWindows(IterableDataset):
    """Batches for the denoiser: frames picked from windows of as many people.

    Each is references (B, H, W, 3), frames and skeletons (B, F, H, W, 3) uint8, loss weights (B, F, H/8, W/8)
    and the frames' places in their window (F,), the same for the whole batch.
    """

    def __init__(self, first: int, batch: int, frames: int, window: int) -> None:
        self.first, self.batch, self.frames, self.window = first, batch, frames, window

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        cv2.setNumThreads(1)
        for n in batch_numbers(self.first):
            rng = np.random.default_rng((n, 3))
            places = np.sort(rng.choice(self.window, self.frames, replace=False))
            items = [
                self._item(TRAINING_SEEDS + self.batch * n + k, rng.uniform(0, 8), places)
                for k in range(self.batch)
            ]
            yield (
                *(torch.from_numpy(np.stack(part)) for part in zip(*items, strict=True)),
                torch.from_numpy(places),
            )

    def _item(self, seed: int, start: float, places: np.ndarray) -> tuple[np.ndarray, ...]:
        clip = Clip(seed)
        t = start + places / FPS
        return clip.reference(), clip.frames(t), clip.skeletons(t), hand_and_face_weights(clip, t)


def hand_and_face_weights(clip: Clip, t: np.ndarray, hand: float = 3.0, face: float = 1.5) -> np.ndarray:
    """Loss weights (F, H/8, W/8) float32: hands and faces are small and are what people look at."""
    pose = clip.pose(t)
    weights = np.ones((len(t), HEIGHT // 8, WIDTH // 8), np.float32)
    cells = WIDTH / 8
    for i in range(len(t)):
        for points, weight in zip(hands_and_face(pose, i), (hand, hand, face), strict=True):
            low = np.maximum(np.floor(points.min(0) * cells).astype(int), 0)
            high = np.ceil(points.max(0) * cells).astype(int)
            part = weights[i, low[1] : max(high[1], 0), low[0] : max(high[0], 0)]
            np.maximum(part, weight, out=part)
    return weights


def stream(dataset: IterableDataset, workers: int = 1) -> Iterator:
    """Batches in order, rendered ahead of the training by that many processes."""
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=4))


def batch_numbers(first: int) -> Iterator[int]:
    """Numbers of the batches that this process renders; the loader takes turns and so keeps their order."""
    worker = get_worker_info()
    return count(first + worker.id, worker.num_workers) if worker else count(first)
