"""Make data folders that ask held-out people for other poses: what a cache may make of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lab.joints.pictures import MIRROR
from lab.presenter.evaluate import HELD_OUT_SEED
from lab.presenter.render.clip import HEIGHT, WIDTH, Clip
from lab.presenter.render.motion import Pose
from lab.presenter.render.skeleton import draw_skeleton

LATE = 3  # frames
SHOULDERS = (2, 5)
SHORT = 0.85  # of the way from the shoulder
Change = Callable[[Pose], Pose]


def late(pose: Pose) -> Pose:
    """Delay all by three frames; the first is held."""
    order = _delayed(pose)
    return replace(pose, body=pose.body[order], hands=pose.hands[order])


def mirrored(pose: Pose) -> Pose:
    """Flip left and right; each colour stays on its side."""
    body, hands = pose.body[:, MIRROR], pose.hands[:, ::-1]
    return replace(pose, body=body * (-1, 1) + (1, 0), hands=hands * (-1, 1) + (1, 0))


def frozen_arms(pose: Pose) -> Pose:
    """Hold arms and hands as they are in the first frame; the body moves on."""
    return _arms_in_order(pose, np.zeros(len(pose.body), int))


def late_arms(pose: Pose) -> Pose:
    """Delay arms and hands by three frames; the body is in time."""
    return _arms_in_order(pose, _delayed(pose))


def short_arms(pose: Pose) -> Pose:
    """Let arms reach less far by 15 %; hands keep their size."""
    body, hands = pose.body.copy(), pose.hands.copy()
    for side, shoulder in enumerate(SHOULDERS):
        for joint in (shoulder + 1, shoulder + 2):
            body[:, joint] = body[:, shoulder] + SHORT * (body[:, joint] - body[:, shoulder])
        hands[:, side] += (body[:, shoulder + 2] - pose.body[:, shoulder + 2])[:, None]
    return replace(pose, body=body, hands=hands)


CHANGES: dict[str, Change] = {
    "as-asked": lambda pose: pose,
    "pose-3-frames-late": late,
    "pose-mirrored": mirrored,
    "arms-frozen": frozen_arms,
    "arms-3-frames-late": late_arms,
    "arms-15-percent-short": short_arms,
}


def write_poses(
    folder: Path, count: int, frames: int, write_video: Callable[[Path, np.ndarray], None]
) -> None:
    """Write a data folder for each of CHANGES, with videos/ and images/ of so many held-out people."""
    for name, change in CHANGES.items():
        for part in ("videos", "images"):
            (folder / name / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            clip, title = Clip(HELD_OUT_SEED + number), f"held-out-{number:02}"
            pose = change(clip.pose(clip.times(frames)))
            pairs = zip(pose.body, pose.hands, strict=True)
            drawn = np.stack([draw_skeleton(body, hands, WIDTH, HEIGHT) for body, hands in pairs])
            write_video(folder / name / "videos" / f"{title}.mp4", drawn)
            Image.fromarray(clip.reference()).save(folder / name / "images" / f"{title}.png")


def _delayed(pose: Pose) -> np.ndarray:
    return np.maximum(np.arange(len(pose.body)) - LATE, 0)


def _arms_in_order(pose: Pose, order: np.ndarray) -> Pose:
    """Show arms and hands of other frames, hung on the shoulders of each."""
    body, hands = pose.body.copy(), pose.hands.copy()
    for side, shoulder in enumerate(SHOULDERS):
        moved = pose.body[:, [shoulder]] - pose.body[order][:, [shoulder]]
        arm = [shoulder + 1, shoulder + 2]
        body[:, arm] = pose.body[order][:, arm] + moved
        hands[:, side] = pose.hands[order][:, side] + moved
    return replace(pose, body=body, hands=hands)
