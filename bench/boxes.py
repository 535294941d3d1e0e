"""Find the hands and the face in a skeleton video by its colours: people look at these first.

OpenPose and its successors draw hand joints in pure blue, and the joints of eyes and ears in hues from violet
to pink; limbs are dimmer. A skeleton video drawn otherwise gives no boxes, and no figures for them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generators.resize import FITS
from pipeline.batch.dataset import stem_of
from pipeline.batch.run_folder import manifest_lines

HAND_SIZE = 0.06  # of the frame's width: the least extent of a hand; a knee is a single blue joint
MARGIN = 0.03  # of the frame's width, around hands and faces


@dataclass(frozen=True)
class Boxes:
    """Two masks of a frame, (H, W) bool: pixels in boxes around the hands, and around the face."""

    hands: np.ndarray
    face: np.ndarray


def find_boxes(skeleton: np.ndarray) -> Boxes:
    """Find boxes for a frame in its skeleton frame (H, W, 3) uint8 RGB, which was brought to its size."""
    height, width = skeleton.shape[:2]
    hands, face = (np.zeros((height, width), bool) for _ in range(2))
    red, green, blue = (skeleton[..., channel].astype(np.int16) for channel in range(3))
    joints = (blue > 160) & (blue - np.maximum(red, green) > 55)
    for box in _blobs(joints, width):
        if max(box[2:]) >= HAND_SIZE * width:
            _fill(hands, box, width)
    head = (red > 90) & (blue > 60) & (green < 80) & (red + blue > 250) & ~hands
    # Eyes and ears: the widest group, and the mouth is about as far below as they are wide.
    groups = _blobs(head, 4 * width)
    if groups:
        x, y, w, h = max(groups, key=lambda box: box[2])
        _fill(face, (x, y, w, max(h, w)), width)
    return Boxes(hands, face)


def rule_of(video: Path) -> str:
    """Return the rule that a video was made by, from its folder's manifest; "cover" where that says none."""
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
        lines = [line for line in manifest_lines(video.parent) if line.get("status") != "failed"]
        rules = {line["id"]: line.get("fit") for line in lines}  # a failure leaves the video of before
        rule = rules.get(stem_of(video))
        return rule if rule in FITS else "cover"
    return "cover"


def _blobs(mask: np.ndarray, width: int) -> list[tuple[int, int, int, int]]:
    """Return x, y, width, height of each connected group; gaps of some hundredths of the width are closed."""
    import cv2

    reach = 2 * round(0.015 * width) + 1
    closed = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    boxes = []
    for label in range(1, len(stats)):
        rows, columns = np.nonzero(mask & (labels == label))
        x, y = columns.min(), rows.min()
        boxes.append((int(x), int(y), int(columns.max() - x + 1), int(rows.max() - y + 1)))
    return boxes


def _fill(mask: np.ndarray, box: tuple[int, int, int, int], width: int) -> None:
    x, y, w, h = box
    margin = round(MARGIN * width)
    mask[max(0, y - margin) : y + h + margin, max(0, x - margin) : x + w + margin] = True
