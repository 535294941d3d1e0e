"""Measure control fidelity: how well the joints of a skeleton video are followed in a made video.

Joints are found in reference, candidate and skeleton alike; one counts as followed if it lies within a part
of the torso of where the skeleton has it (PCK, Yang and Ramanan 2013). A pose model that does not
know the people shown finds their joints anywhere, in the reference too, and so measures nothing.
"""

from __future__ import annotations

import numpy as np

from bench.pose import PoseModel, load_pose_model
from bench.similarity import BATCH

# Of the torso: a joint within the one is followed, one beyond the other counts as that far.
REACH, FAR = 0.1, 0.2
SURE = 0.3  # the least confidence of a joint that a skeleton shows
KNOWN = 0.7  # of the joints must be followed in the reference, or the pose model knows no such people
LEAST = 3  # joints that a skeleton shows in a frame, on average
METRICS = (
    "control_reference", "control_candidate", "control_loss", "control_arms_loss", "control_arms_error",
)  # fmt: skip
ARMS = [3, 4, 6, 7]  # elbows and wrists
NECK, SHOULDERS, HIPS = 1, [2, 5], [8, 11]
TORSO_OF_SHOULDERS = 1.7  # where no hips are drawn


class Control:
    """An accumulator of skeleton, reference and candidate: a frame of each at a time, one at least."""

    def __init__(self, model: PoseModel) -> None:
        self._model, self._drawn = model, load_pose_model("skeleton")
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._found: list[tuple[np.ndarray, ...]] = []

    def update(self, skeleton: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add the next frame of each, (H, W, 3) uint8, the skeleton's fitted as it was for the generator."""
        self._waiting.append((skeleton, reference, candidate))
        if len(self._waiting) == BATCH:
            self._take()

    def summary(self) -> dict[str, float | None]:
        """Return shares of joints within REACH, of the reference and the candidate, and what is lost between.

        control_arms_loss is of elbows and wrists alone; control_arms_error: by how many hundredths of a torso
        they lie further from the skeleton's than the reference's do, on average. None: too few joints are
        drawn, or the pose model does not find them in the reference either.
        """
        if self._waiting:
            self._take()
        return _shares(*(np.concatenate(part) for part in zip(*self._found, strict=True)))

    def _take(self) -> None:
        models = self._drawn, self._model, self._model
        columns = zip(*self._waiting, strict=True)
        self._found.append(tuple(m.joints(frames) for m, frames in zip(models, columns, strict=True)))
        self._waiting = []


def _shares(drawn: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> dict[str, float | None]:
    shares: dict[str, float | None] = dict.fromkeys(METRICS)
    sure = drawn[..., 2] >= SURE  # (F, 18)
    torso = _torso(drawn[..., :2], sure)
    if sure.sum() < LEAST * len(sure) or not torso:
        return shares
    away = [
        np.linalg.norm(found[..., :2] - drawn[..., :2], axis=-1) / torso for found in (reference, candidate)
    ]
    followed = [float((each[sure] <= REACH).mean()) for each in away]
    shares["control_reference"] = followed[0]
    if followed[0] < KNOWN:
        return shares
    shares |= {"control_candidate": followed[1], "control_loss": followed[0] - followed[1]}
    if (arms := sure[:, ARMS]).any():
        wanted, found = (each[:, ARMS][arms] for each in away)
        shares["control_arms_loss"] = float((wanted <= REACH).mean() - (found <= REACH).mean())
        shares["control_arms_error"] = 100 * float(
            np.minimum(found, FAR).mean() - np.minimum(wanted, FAR).mean()
        )
    return shares


def _torso(drawn: np.ndarray, sure: np.ndarray) -> float | None:
    """Return the median length of the torso in pixels; None if no frame shows enough of it."""
    for needed, length in (
        ([NECK, *HIPS], lambda at: np.linalg.norm(at[:, HIPS].mean(1) - at[:, NECK], axis=1)),
        (SHOULDERS, lambda at: TORSO_OF_SHOULDERS * np.linalg.norm(at[:, 2] - at[:, 5], axis=1)),
    ):
        whole = sure[:, needed].all(1)
        if whole.any():
            return float(np.median(length(drawn[whole])))
    return None
