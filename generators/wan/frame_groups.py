"""Group the frames of a video that share a latent frame: the first alone, then four by four."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from generators.wan.config import VAE_STRIDE_T


def groups(chunks: Iterable[np.ndarray], least: int = 1) -> Iterator[np.ndarray]:
    """Cut a clip's chunks into groups (1 or 4, H, W, 3); at least that many, filled with the last frame."""
    waiting, made = np.empty(0), 0
    for chunk in chunks:
        waiting = np.concatenate([waiting, chunk]) if len(waiting) else chunk
        while len(waiting) >= (VAE_STRIDE_T if made else 1):
            size = VAE_STRIDE_T if made else 1
            yield waiting[:size]
            last, waiting, made = waiting[size - 1 : size], waiting[size:], made + 1
    if len(waiting):
        last = waiting[-1:]
        yield np.concatenate([waiting, np.repeat(last, VAE_STRIDE_T - len(waiting), 0)])
        made += 1
    for _ in range(made, least):
        yield np.repeat(last, VAE_STRIDE_T, 0)


def mirrored(chunks: Iterable[np.ndarray], every: int, shared: int) -> Iterator[np.ndarray]:
    """Cut frames into windows (every, H, W, 3) that share `shared` with the next, mirrored at the end.

    The last is filled by playing the clip backwards from its end, and forwards again from its beginning.
    """
    waiting = before = np.empty(0)
    for chunk in chunks:
        waiting = np.concatenate([waiting, chunk]) if len(waiting) else chunk
        while len(waiting) > every:
            yield waiting[:every]
            before, waiting = waiting[: every - shared], waiting[every - shared :]
    known = np.concatenate([before, waiting]) if len(before) else waiting
    yield known[bounced(len(known), len(before) + every)[len(before) :]]


def bounced(frames: int, wanted: int) -> np.ndarray:
    """List the indices of frames played back and forth: 0 1 2 1 0 1 ..."""
    if frames == 1:
        return np.zeros(wanted, int)
    place = np.arange(wanted) % (2 * frames - 2)
    return np.minimum(place, 2 * frames - 2 - place)
