"""Tell when the clock of the machine has jumped, so that nothing is removed for that."""

from __future__ import annotations

import time

JUMP = 10.0  # seconds by which the clocks may part from one look to the next
PAUSE = 3_600.0  # seconds without removals after a jump: the clock may be put right, or results fetched


class Clock:
    """The wall clock, held against the monotonic one, which nobody sets and no sleep of the machine moves."""

    def __init__(self) -> None:
        self._apart, self._jumped = time.time() - time.monotonic(), -float("inf")

    def now(self, pause: float = PAUSE) -> float | None:
        """Return the wall clock's time; None: it has jumped since the last look, or in `pause` seconds."""
        wall, monotonic = time.time(), time.monotonic()
        before, self._apart = self._apart, wall - monotonic
        if abs(self._apart - before) > JUMP:
            self._jumped = monotonic
        return wall if monotonic - self._jumped >= pause else None
