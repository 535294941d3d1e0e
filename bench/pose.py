"""Find joints in pictures by a described pose estimator: an ONNX graph, ours or the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.described import (
    KNOWN,
    Described,
    ExtractorError,
    check_known,
    described_file,
    find_description,
    fitted,
    read_description,
    run_graph,
    start_session,
    to_pixels,
)

POSE_MODELS = Path(__file__).parent / "pose_models"
PRESENTER = "presenter"  # the model that knows the bundled generator's people
JOINTS = 18  # in OpenPose's order: nose, neck, right and left arm, right and left leg, eyes, ears
# Where OpenPose's joints are among COCO's 17, with which COCO-WholeBody's 133 begin; the neck is in neither.
FROM_COCO = (0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
COCO_SHOULDERS = (5, 6)


@dataclass(frozen=True, kw_only=True)
class PoseSpec(Described):
    """The content of a pose model's JSON file.

    kind: "heatmaps" for one output (N, joints, h, w), "simcc" for two, (N, joints, bins) across and down, as
    RTMPose and DWPose have them; split: their bins a pixel. joints: "openpose-18", or "coco-17" for models
    whose first 17 joints are COCO's. Whole pictures are fitted to its size.
    """

    joints: str
    outputs: tuple[str, ...]
    split: float = 2.0
    fit: str = "pad"
    resize: str = "bilinear"

    def __post_init__(self) -> None:
        check_known(self, {"kind": ("heatmaps", "simcc"), "joints": ("openpose-18", "coco-17"), **KNOWN})
        if len(self.outputs) != (1 if self.kind == "heatmaps" else 2):
            raise ValueError(f"outputs are {', '.join(self.outputs)}; heatmaps has one, simcc two, x and y")


class PoseModel:
    """A verified pose estimator, run by ONNX Runtime on the processor."""

    def __init__(self, spec: PoseSpec, graph: Path) -> None:
        self.spec, self.name = spec, spec.name
        self._session = start_session(graph)

    def joints(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return x, y in pixels and a confidence (N, 18, 3) of the joints in pictures (H, W, 3) of one size.

        ExtractorError: the graph gives something else than it is described to give.
        """
        pixels = to_pixels([fitted(picture, self.spec) for picture in pictures], self.spec)
        found = run_graph(self._session, list(self.spec.outputs), {self.spec.input: pixels}, self.name)
        self._check_shapes([each.shape for each in found], len(pictures))
        if self.spec.kind == "heatmaps":
            at = _peaks_of_maps(found[0], self.spec.size)
        else:
            at = _peaks_of_bins(*found, self.spec.split)
        least = JOINTS if self.spec.joints == "openpose-18" else 17
        if at.shape[1] < least:
            raise ExtractorError(f"{self.name} finds {at.shape[1]} joints; {self.spec.joints} has {least}")
        if self.spec.joints == "coco-17":
            at = _from_coco(at)
        height, width = pictures[0].shape[:2]
        at = at[:, :JOINTS]
        at[..., :2] = _unfitted(at[..., :2], (width, height), self.spec)
        return at

    def _check_shapes(self, shapes: list[tuple[int, ...]], count: int) -> None:
        """Raise ExtractorError unless outputs for that many pictures have the shapes of the model's kind."""
        ranks = {"heatmaps": (4, "(N, joints, rows, columns)"), "simcc": (3, "(N, joints, bins) twice")}
        rank, words = ranks[self.spec.kind]
        whole = all(len(shape) == rank and shape[0] == count and all(shape) for shape in shapes)
        if not whole or len({shape[:2] for shape in shapes}) > 1:
            told = " and ".join(map(str, shapes))
            raise ExtractorError(f"{self.name} gives {told} for N = {count}; {self.spec.kind} is {words}")


@lru_cache(maxsize=4)
def load_pose_model(name: str) -> PoseModel:
    """Load and verify the pose model of that name in bench/pose_models, or of a path to a JSON file.

    ExtractorError: there is none, its file is not the one described, or it does not give what is described.
    """
    path = find_description(name, POSE_MODELS, "pose model")
    spec = read_description(path, PoseSpec, "a pose model")
    model = PoseModel(spec, described_file(path, spec.onnx, spec.sha256))
    model.joints([np.zeros((*spec.size[::-1], 3), np.uint8)])
    return model


def _peaks_of_maps(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return x, y at the graph's size and the height (N, J, 3) of the highest point of each heat map.

    Between cells by a parabola through the logarithms, which is exact for a Gaussian.
    """
    count, joints, height, width = maps.shape
    rows, columns = np.divmod(maps.reshape(count, joints, -1).argmax(2), width)
    n, j = np.ogrid[:count, :joints]
    logs = np.log(np.maximum(maps, 1e-6))

    def moved(at: np.ndarray, most: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        here = logs[n, j, rows, columns]
        bend = before - 2 * here + after
        step = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend < -1e-6)
        return np.where((at > 0) & (at < most - 1), at + step.clip(-0.5, 0.5), at)

    left, right = np.maximum(columns - 1, 0), np.minimum(columns + 1, width - 1)
    above, below = np.maximum(rows - 1, 0), np.minimum(rows + 1, height - 1)
    x = moved(columns, width, logs[n, j, rows, left], logs[n, j, rows, right])
    y = moved(rows, height, logs[n, j, above, columns], logs[n, j, below, columns])
    x = (x + 0.5) * size[0] / width - 0.5
    y = (y + 0.5) * size[1] / height - 0.5
    return np.stack([x, y, maps[n, j, rows, columns]], 2).astype(np.float64)


def _peaks_of_bins(across: np.ndarray, down: np.ndarray, split: float) -> np.ndarray:
    """Return x, y at the graph's size and the lower of both heights (N, J, 3)."""
    sure = np.minimum(across.max(2), down.max(2))
    return np.stack([across.argmax(2) / split, down.argmax(2) / split, sure], 2).astype(np.float64)


def _from_coco(found: np.ndarray) -> np.ndarray:
    at = found[:, FROM_COCO, :]
    at[:, 1] = found[:, COCO_SHOULDERS, :].mean(1)
    return at


def _unfitted(at: np.ndarray, size: tuple[int, int], spec: PoseSpec) -> np.ndarray:
    """Return points (..., 2) of a fitted picture in pixels of the picture, as bench/described.py fits it."""
    scales = [inner / whole for inner, whole in zip(spec.size, size, strict=True)]
    edges = [0, 0]
    if spec.fit == "pad":
        scale = min(scales)
        inner = [max(1, round(side * scale)) for side in size]
        edges = [(side - used) // 2 for side, used in zip(spec.size, inner, strict=True)]
        scales = [used / side for used, side in zip(inner, size, strict=True)]
    return (at + 0.5 - edges) / scales - 0.5
