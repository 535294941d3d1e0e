"""Tell what a generator's fit() does to a file's pictures: what it cuts away, and how it stretches them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.video.skeleton_check import DARK

LONGEST = 512  # side of the trial picture: rules depend on the shape alone
LEAST_CUT = 0.02  # of a side; less is rounding
MUCH_CUT = 0.25  # of a picture's area; 9:16 as 2:3 loses 0.16, a square 0.33
MUCH_STRETCHED = 1.25
MUCH_LOST = 0.02  # of what is drawn; a hand is 0.03


class Framing:
    """What a rule does to pictures of one size, found by giving it a picture whose colours are its places.

    fit: brings pictures (F, H, W, 3) uint8 to another size. size: width, height of what it will get.
    cut: the share of the area that is not shown. stretched: how much wider, against its height, what is shown
    becomes. Of a rule that does not keep places apart, nothing is said.
    """

    def __init__(self, fit: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]) -> None:
        self._size = size
        width, height = (max(round(side * LONGEST / max(size)), 2) for side in size)
        trial = np.full((1, height, width, 3), 255, np.uint8)
        trial[..., 0] = np.linspace(0, 255, width).round()
        trial[..., 1] = np.linspace(0, 255, height).round()[:, None]
        seen = fit(trial)[0]
        shown = seen[..., 2] > 127  # bars around the picture are not
        columns, rows = _span(seen[shown][:, 0], shown.any(0)), _span(seen[shown][:, 1], shown.any(1))
        self._target = seen.shape[1::-1]
        self._kept = (columns, rows) if columns and rows else ((0.0, 1.0), (0.0, 1.0))
        across, down = (end - start for start, end in self._kept)
        self.cut = float(1 - across * down)
        self.stretched = 1.0
        if columns and rows:
            wide, high = shown.any(0).sum() / (across * size[0]), shown.any(1).sum() / (down * size[1])
            self.stretched = float(wide / high)
        self._drawn, self._lost = 0, 0

    def look(self, frame: np.ndarray) -> None:
        """Count what is drawn on black in a frame (H, W, 3), and what of it is not shown."""
        if self.cut < LEAST_CUT:
            return
        lit = frame.max(-1) > DARK
        ends = zip(self._kept, lit.shape[::-1], strict=True)
        (left, right), (top, bottom) = (
            (int(start * side), int(np.ceil(end * side))) for (start, end), side in ends
        )
        drawn = int(lit.sum())
        self._drawn += drawn
        self._lost += drawn - int(lit[top:bottom, left:right].sum())

    @property
    def note(self) -> str | None:
        """What the user should know of a picture, or of the frames that look() saw; None: nothing."""
        if self._drawn and self._lost / self._drawn > MUCH_LOST:
            what = f"{self._lost / self._drawn:.0%} of what is drawn is cut away"
        elif not self._drawn and self.cut > MUCH_CUT:
            what = f"{self.cut:.0%} of it is cut away"
        elif self.stretched >= MUCH_STRETCHED:
            what = f"it is stretched to {self.stretched:.1f} times its width"
        elif self.stretched <= 1 / MUCH_STRETCHED:
            what = f"it is stretched to {1 / self.stretched:.1f} times its height"
        else:
            return None
        (width, height), (new_width, new_height) = self._size, self._target
        return f"{what} ({width} x {height} to {new_width} x {new_height}); --fit contain shows it whole"


def _span(levels: np.ndarray, places: np.ndarray) -> tuple[float, float] | None:
    """Return the start and end, from 0 to 1, of the part that is shown along a side; None: not known.

    levels: the ramp's levels that are seen. places: which columns or rows show the picture; the outermost
    ones' centres lie half a place within the part.
    """
    count = int(places.sum())
    if count < 2 or levels.max() == levels.min():
        return None
    start, end = levels.min() / 255, levels.max() / 255
    half = (end - start) / (count - 1) / 2
    return max(start - half, 0.0), min(end + half, 1.0)
