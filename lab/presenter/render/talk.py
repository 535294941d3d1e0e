"""What neither the skeleton nor the reference image tells: speech, blinks, gaze, lights, folds in the cloth.

Real footage is full of such detail, and a generator has to invent it. Without it a pose-driven model has
only one right answer, and any shortcut in its sampling would look lossless.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.presenter.render.motion import Noise

LIGHTS = 7


@dataclass(frozen=True)
class Talk:
    """F moments: mouth (F, 3) open, wide, smile; lids (F,) 1 open; brows (F,); gaze (F, 2); folds (F, 8);
    lights (F, 7, 3) two drifts and a brightness."""

    mouth: np.ndarray
    lids: np.ndarray
    brows: np.ndarray
    gaze: np.ndarray
    folds: np.ndarray
    lights: np.ndarray


def random_talk(seed: int, t: np.ndarray) -> Talk:
    """Detail at times t (F,) in seconds; another seed tells another story with the same pose and person."""
    rng = np.random.default_rng((seed, 2))
    syllables, phrase, shape = Noise(rng, 1, 2.0, 4.5), Noise(rng, 1, 0.2, 0.5), Noise(rng, 2, 0.6, 1.8)
    slow, gaze, folds, lights = (
        Noise(rng, 2, 0.1, 0.5),
        Noise(rng, 2, 0.1, 0.4),
        Noise(rng, 8, 0.15, 0.6),
        Noise(rng, 3 * LIGHTS, 0.06, 0.30),
    )
    speaking = np.clip(1.5 * phrase(t)[:, 0] + 0.9, 0, 1)
    opening = np.clip(0.5 + 0.6 * syllables(t)[:, 0], 0, 1) * speaking
    mouth = np.stack([opening, shape(t)[:, 0], np.clip(slow(t)[:, 0] + 0.4, 0, 1)], 1)
    blinks = np.cumsum(rng.uniform(0.8, 3.5, 60)) - 2.0
    lids = np.clip(np.abs(t[:, None] - blinks).min(1) / 0.09, 0.0, 1.0)
    return Talk(mouth, lids, slow(t)[:, 1], gaze(t), folds(t), lights(t).reshape(len(t), LIGHTS, 3))
