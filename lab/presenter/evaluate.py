"""Hold generated clips against the renderer's truth on people and motions that were never trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.frame_metrics import psnr, ssim, temporal_error
from lab.presenter.render.clip import HEIGHT, WIDTH, Clip
from lab.presenter.render.motion import hands_and_face

HELD_OUT_SEED = 500_000
Generate = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class HeldOut:
    """One held-out clip: truth, skeletons and determined (F, H, W[, 3]), reference (H, W, 3)."""

    clip: Clip
    t: np.ndarray
    truth: np.ndarray
    skeletons: np.ndarray
    determined: np.ndarray
    reference: np.ndarray


def held_out(number: int, frames: int) -> HeldOut:
    """Clip `number` of the held-out set."""
    clip = Clip(HELD_OUT_SEED + number)
    t = clip.times(frames)
    return HeldOut(clip, t, clip.frames(t), clip.skeletons(t), clip.determined(t), clip.reference())


def measure(item: HeldOut, generated: np.ndarray) -> dict[str, float]:
    """Distances of generated frames (F, H, W, 3) uint8 from the truth.

    PSNR in dB over determined pixels, all pixels, and boxes around hands and face; SSIM; and in 8-bit levels
    the error of the change from frame to frame, beside how much the truth itself changes.
    """
    error = generated.astype(np.float32) - item.truth
    hands, face = hand_and_face_boxes(item)
    return {
        "psnr_determined": psnr(error, item.determined),
        "psnr": psnr(error),
        "psnr_hands": psnr(error, hands),
        "psnr_face": psnr(error, face),
        "ssim": float(np.mean([ssim(a, b) for a, b in zip(generated, item.truth, strict=True)])),
        "temporal_error": temporal_error(error),
        "temporal_change_of_truth": temporal_error(item.truth.astype(np.float32)),
    }


def hand_and_face_boxes(item: HeldOut, margin: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (F, H, W) bool inside boxes around both hands, and around the face."""
    pose = item.clip.pose(item.t)
    hands, face = (np.zeros((len(item.t), HEIGHT, WIDTH), bool) for _ in range(2))
    for i in range(len(item.t)):
        for points, mask in zip(hands_and_face(pose, i), (hands, hands, face), strict=True):
            x0, y0 = np.floor((points.min(0) - margin) * WIDTH).astype(int).clip(0)
            x1, y1 = np.ceil((points.max(0) + margin) * WIDTH).astype(int).clip(0)
            mask[i, y0:y1, x0:x1] = True
    return hands, face


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure over clips; clips without pixels for it (nan) do not count."""
    return {key: round(float(np.nanmean([row[key] for row in rows])), 3) for key in rows[0]}


def contact_sheet(items: list[HeldOut], generated: list[np.ndarray], moments: int = 3) -> np.ndarray:
    """A picture: a row per clip, its reference, then skeleton, truth and generated frame at a few moments."""
    rows = []
    for item, frames in zip(items, generated, strict=True):
        moment = np.linspace(0, len(frames) - 1, moments).round().astype(int)
        rows.append([item.reference, *(p[i] for i in moment for p in (item.skeletons, item.truth, frames))])
    return grid(rows)


def renderer_sheet(seeds: list[int]) -> np.ndarray:
    """A picture with a row per seed: what its clip shows after a second.

    Reference, skeleton, frame, the frame with its free detail drawn anew, the frame with that detail in grey.
    """
    rows = []
    for seed in seeds:
        clip, t = Clip(seed), np.array([1.0])
        frame = clip.frames(t)
        masked = np.where(clip.determined(t)[..., None], frame, 128).astype(np.uint8)
        redrawn = clip.frames(t, detail_seed=seed + 1)
        rows.append([clip.reference(), clip.skeletons(t)[0], frame[0], redrawn[0], masked[0]])
    return grid(rows)


def grid(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Pictures of one size in rows and columns, with white lines between them."""
    return np.concatenate(
        [
            np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in row], 1)
            for row in rows
        ]
    )
