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


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two frames (H, W, 3) uint8: Wang et al. (2004), Gaussian window, sigma 1.5."""
    import cv2

    a, b = a.astype(np.float32), b.astype(np.float32)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    c1, c2, mean_a, mean_b = (0.01 * 255) ** 2, (0.03 * 255) ** 2, blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    return float(
        (
            ((2 * mean_a * mean_b + c1) * (2 * both + c2))
            / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        ).mean()
    )
