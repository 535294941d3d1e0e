"""Notice a skeleton video that does not look like thin coloured limbs on black; it is never refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

DARK = 48  # levels: a pixel is dark if no channel is brighter
LEAST_DARK = 0.75  # of a frame; real and rendered skeletons have 0.92 to 0.99, footage 0.18, DensePose 0
BLOCK = 0.06  # block size over the shorter side: blocks that are lit throughout are not limbs
MOST_FILLED = 0.25  # of lit pixels; skeletons have 0 to 0.07, thick ones 0.15, DensePose's bodies 0.84
COLOURED = 64  # levels between the strongest and the weakest channel of a coloured pixel
LEAST_COLOURED = 0.3  # of lit pixels; skeletons have 0.72 to 0.95, white lines and grey maps 0


class SkeletonCheck:
    """A check of a skeleton video that looks at one frame of each chunk while the chunks are read."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float, float]] = []

    def watch(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Give the chunks (n, H, W, 3) uint8 unchanged, and measure the first frame of each."""
        self._seen = []
        for chunk in chunks:
            self._seen.append(measure(chunk[0]))
            yield chunk

    @property
    def note(self) -> str | None:
        """A sentence for the user; None if the frames look like a skeleton video, or none was seen."""
        if not self._seen:
            return None
        dark, filled, coloured = np.array(self._seen).mean(0)
        if dark == 1:
            odd = "nothing is drawn in what the model sees of it"
        elif dark < LEAST_DARK:
            odd = f"only {dark:.0%} of it is black"
        elif filled > MOST_FILLED:
            odd = f"{filled:.0%} of what is drawn are filled areas, not thin limbs"
        elif coloured < LEAST_COLOURED:
            odd = f"only {coloured:.0%} of what is drawn has a colour"
        else:
            return None
        return f"the skeleton video does not look like key points drawn on black: {odd}"


def measure(frame: np.ndarray) -> tuple[float, float, float]:
    """Return a frame's share of dark pixels, and of its lit pixels the shares in filled blocks and in colour.

    frame: (H, W, 3) uint8. A frame in which nothing is lit has no filled blocks, and counts as coloured.
    """
    lit = frame.max(-1) > DARK
    if not lit.any():
        return 1.0, 0.0, 1.0
    block = max(2, round(BLOCK * min(lit.shape)))
    rows, columns = (side // block for side in lit.shape)
    blocks = lit[: rows * block, : columns * block].reshape(rows, block, columns, block)
    filled = blocks.all((1, 3)).sum() * block**2 / lit.sum()
    coloured = np.ptp(frame[lit].astype(np.int16), axis=-1) > COLOURED
    return 1 - float(lit.mean()), float(filled), float(coloured.mean())
