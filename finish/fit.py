"""A picture as the networks take it."""

from __future__ import annotations

import numpy as np

SIDE = 192  # pixels of the cover network's square input


def fitted(picture: np.ndarray, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """A picture (H, W, 3) uint8 stretched to a size (width, height), averaged where it shrinks."""
    import cv2

    smaller = picture.shape[1] >= size[0] and picture.shape[0] >= size[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
