"""Draw on one place of every frame: a box over the person, glasses, a beard; and changes that keep all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from bench.boxes import Boxes
from lab.extractor.defects import Defect, Kind, Scene, encoded_again

GREY = (128, 128, 128)
FRAME = (40, 40, 46)  # of glasses, nearly black
HAIR = (58, 40, 32)
EYES, MOUTH = 0.16, 0.70  # of a face's height, from its top
BUSIEST = 8  # parts a side, of which the one that moves most is the person


def box(frames: np.ndarray, part: float, centres: np.ndarray) -> np.ndarray:
    """Draw a grey rectangle of that part of each side around x and y of every frame (F, 2)."""
    high, wide = (max(1, round(part * size)) for size in frames.shape[1:3])
    changed = frames.copy()
    for frame, (x, y) in zip(changed, centres, strict=True):
        sides = (y, high, frame.shape[0]), (x, wide, frame.shape[1])
        top, left = (min(max(0, int(at) - size // 2), most - size) for at, size, most in sides)
        frame[top : top + high, left : left + wide] = GREY
    return changed


def face_places(boxes: Iterable[Boxes]) -> np.ndarray | None:
    """Return x, y, width and height of the face in every frame (F, 4); None if a frame has none."""
    places = []
    for each in boxes:
        rows, columns = (np.nonzero(each.face.any(axis))[0] for axis in (1, 0))
        if not len(rows):
            return None
        places.append((columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1))
    return np.array(places, float)


def with_glasses(frames: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Draw two dark rings and a bridge at the eyes of the faces (F, 4)."""
    import cv2

    changed = frames.copy()
    for frame, (x, y, w, h) in zip(changed, faces, strict=True):
        thick, radius, level = max(1, round(0.04 * w)), 0.15 * w, y + EYES * h
        for side in (-1, 1):
            _ring(cv2, frame, (x + (0.5 + 0.2 * side) * w, level), radius, thick)
        ends = [(int(16 * (x + part * w)), int(16 * level)) for part in (0.45, 0.55)]
        cv2.line(frame, *ends, FRAME, thick, cv2.LINE_AA, 4)
    return changed


def with_beard(frames: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Draw hair from ear to ear over cheeks and chin of the faces (F, 4), the mouth left free."""
    import cv2

    changed = frames.copy()
    angles = np.linspace(0, np.pi, 24)
    for frame, (x, y, w, h) in zip(changed, faces, strict=True):
        middle = x + w / 2
        jaw = np.stack([middle + 0.42 * w * np.cos(angles), y + 0.44 * h + 0.52 * h * np.sin(angles)], 1)
        cheeks = [(middle - 0.28 * w, y + 0.52 * h), (middle - 0.1 * w, y + 0.6 * h)]
        cheeks += [(2 * middle - a, b) for a, b in reversed(cheeks)]
        mask = np.zeros(frame.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.int32(16 * np.concatenate([jaw, cheeks]))], 255, cv2.LINE_AA, 4)
        centre = (int(16 * middle), int(16 * (y + MOUTH * h)))
        cv2.ellipse(mask, centre, (int(16 * 0.15 * w), int(16 * 0.08 * h)), 0, 0, 360, 0, -1, cv2.LINE_AA, 4)
        cover = 0.85 * mask[..., None] / 255
        frame[:] = np.round(frame * (1 - cover) + np.array(HAIR) * cover)
    return changed


def _ring(cv2: object, frame: np.ndarray, centre: tuple[float, float], radius: float, thick: int) -> None:
    cv2.circle(frame, tuple(int(16 * c) for c in centre), int(16 * radius), FRAME, thick, cv2.LINE_AA, 4)


def busiest(frames: np.ndarray) -> np.ndarray:
    """Return x and y (F, 2) of the middle of the part of the picture that changes most from frame to frame."""
    import cv2

    change = np.zeros(frames.shape[1:3], np.float32)
    for before, now in zip(frames[:-1], frames[1:], strict=True):
        change += np.abs(now.astype(np.float32) - before).mean(2)
    parts = cv2.resize(change, (BUSIEST, BUSIEST), interpolation=cv2.INTER_AREA)
    row, column = np.unravel_index(parts.argmax(), parts.shape)
    height, width = change.shape
    return np.full((len(frames), 2), ((column + 0.5) * width / BUSIEST, (row + 0.5) * height / BUSIEST))


def _moving(part: float) -> Callable[[Scene], np.ndarray]:
    return lambda scene: box(scene.frames, part, busiest(scene.frames))


def _at_face(draw: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Scene], np.ndarray | None]:
    return lambda scene: None if scene.faces is None else draw(scene.frames, scene.faces)


def _boxed_face(part: float) -> Callable[[Scene], np.ndarray | None]:
    return _at_face(lambda frames, faces: box(frames, part, faces[:, :2] + faces[:, 2:] / 2))


def mirrored(scene: Scene) -> np.ndarray:
    """Flip left and right."""
    return scene.frames[:, :, ::-1].copy()


PLACES = (
    *(Defect(f"crf {crf}", partial(encoded_again, crf=crf), Kind.HARMLESS) for crf in (18, 23, 28)),
    Defect("grey box of 6 % over what moves most", _moving(0.06), Kind.LOOK),
    Defect("grey box of 16 % over what moves most", _moving(0.16), Kind.LOOK),
    Defect("grey box of 6 % over the face", _boxed_face(0.06), Kind.LOOK),
    Defect("grey box of 16 % over the face", _boxed_face(0.16), Kind.LOOK),
    Defect("glasses", _at_face(with_glasses), Kind.LOOK),
    Defect("beard", _at_face(with_beard), Kind.LOOK),
    Defect("mirrored", mirrored, Kind.LOOK),
)
