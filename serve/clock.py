"""Tell when the clock of the machine has jumped, so that nothing is removed for that."""

from __future__ import annotations

import time

JUMP = 10.0  # seconds by which the clocks may part from one look to the next
PAUSE = 3_600.0  # seconds without removals after a jump: the clock may be put right, or results fetched


class Clock:
    """The wall clock, held against the monotonic one, which nobody sets and no sleep of the machine moves."""

    def __init__(self) -> None:
        self._apart, self._jumped = self._offset(), -float("inf")

    def is_trusted(self, pause: float = PAUSE) -> bool:
        """Return whether the clock has not jumped since the last look, nor in the `pause` seconds before."""
        before, self._apart = self._apart, self._offset()
        if abs(self._apart - before) > JUMP:
            self._jumped = time.monotonic()
        return time.monotonic() - self._jumped >= pause

    @staticmethod
    def _offset() -> float:
        return time.time() - time.monotonic()
