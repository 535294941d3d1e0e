"""How far generated frames are from others."""

from __future__ import annotations

import numpy as np


def psnr(error: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of an 8-bit error (F, H, W, 3), over pixels where (F, H, W) is true.

    inf where the error is zero, nan where there are no pixels.
    """
    squared = np.square(error if where is None else error[where], dtype=np.float64)
    if squared.size == 0:
        return float("nan")
    mean = squared.mean()
    return float(10 * np.log10(255**2 / mean)) if mean else float("inf")


def temporal_error(error: np.ndarray) -> float:
    """Mean size of the change of an error (F, H, W, 3) from frame to frame, in 8-bit levels: flicker."""
    return float(np.abs(np.diff(error, axis=0)).mean()) if len(error) > 1 else 0.0
