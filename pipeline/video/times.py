"""Say when each frame of a video is shown: one table of presentation times, for all that reads videos."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from engines.errors import InputError
from pipeline.video.ffmpeg import evenly_spaced, tick

Frame = TypeVar("Frame")
RATES = (Fraction(1, 1001), Fraction(1000))  # frames a second that can be written
REORDERED = 16  # frames, at most, that H.264 and HEVC code before one that is shown earlier
UNKNOWN = ("NOPTS", str(-(2**63)))
DISCARDED = 4  # flag of a packet that an edit list leaves out
ROW = re.compile(r"^0, *-?\d+, *(NOPTS|-?\d+),(?:.*?F=0x(\w+))?", re.MULTILINE)


@dataclass(frozen=True)
class Times:
    """When the frames of a video are shown: ascending ticks (N,) int64 of `unit` seconds.

    They count from the start of the file, which is that of the picture or of the sound, whichever begins
    first. Frames that an edit list leaves out are not among them.
    """

    ticks: np.ndarray
    unit: Fraction

    @classmethod
    def of_packets(cls, listing: str) -> tuple[Times, bool]:
        """Return the times of a framecrc listing of packets, and whether each frame surely has its own.

        Else decoding alone tells them: of packets without a time, two with the same one, or some at the start
        that are shown before what they refer to.
        """
        rows = ROW.findall(listing)
        shown = [time for time, flags in rows if not int(flags or "1", 16) & DISCARDED]
        ticks = np.unique(np.array([int(time) for time in shown if time not in UNKNOWN], np.int64))
        sure = 0 < len(ticks) == len(shown) and rows[0][0] not in UNKNOWN and int(rows[0][0]) <= ticks[0]
        return cls(ticks, tick(listing, 0)), sure

    def decoded(self, listing: str) -> Times:
        """Return the times of a framecrc listing of decoded frames, in the same unit."""
        ratio = tick(listing, 0) / self.unit
        ticks = [round(time * ratio) for time in timestamps(listing)]
        return Times(np.sort(np.array(ticks, np.int64)), self.unit)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.ticks)

    def seconds(self, rate: Fraction) -> np.ndarray:
        """Return when each frame begins to be shown, and when the last one ends (N + 1,), in seconds.

        rate: frames a second, which says how long the last one is shown.
        """
        begins = self.ticks * float(self.unit)
        return np.append(begins, begins[-1:] + 1 / float(rate))

    def rate(self, nominal: Fraction) -> tuple[Fraction, bool]:
        """Return frames per second, and whether the frames are unevenly spaced.

        nominal: the stream's own rate, which is returned if the times agree with it, but for gaps among the
        last frames, as a cut between frames that refer to each other leaves them; else the average rate is.
        """
        ticks = np.unique(self.ticks)
        times = ticks[: _before_gaps(np.diff(ticks) * float(self.unit * nominal))].tolist()
        if len(ticks) < 2 or evenly_spaced(times, self.unit, nominal):
            return nominal, False
        average = (len(ticks) - 1) / (int(ticks[-1] - ticks[0]) * self.unit)
        average = average.limit_denominator(1001) if average > RATES[0] else average
        return average, not evenly_spaced(ticks.tolist(), self.unit, average)

    def densest(self, most: int = 120) -> Fraction:
        """Return the frames a second, up to `most`, of the frames that follow each other most closely."""
        step = Fraction(float(np.quantile(np.diff(np.unique(self.ticks)), 0.05))) * self.unit
        return min(Fraction(most), 1 / step).limit_denominator(1001)


def at_rate(frames: Iterable[Frame], ends: Iterable[Fraction]) -> Iterator[Frame]:
    """Give the frame that is shown at each time of another rate: some twice, or not all.

    ends: of each frame's time, counted in that rate's frames from the first one on. As many are given as
    begin before the last one ends.
    """
    given = 0
    for frame, end in zip(frames, ends, strict=False):
        while given < end:
            yield frame
            given += 1


def timestamps(listing: str) -> list[int]:
    """Return the presentation times of a framecrc listing, in ticks, without unknown ones."""
    return [int(time) for time, _ in ROW.findall(listing) if time not in UNKNOWN]


def _before_gaps(steps: np.ndarray) -> int:
    """Return how many frames come before the gaps at the end; all where the gaps are no cut's.

    steps: from frame to frame (N - 1,), in units of an even one.
    """
    gaps = np.flatnonzero(np.rint(steps) != 1)
    cut = len(gaps) and gaps[0] >= REORDERED and steps[gaps[0] :].sum() <= REORDERED
    return int(gaps[0]) + 1 if cut else len(steps) + 1


def check_rate(name: object, rate: Fraction) -> None:
    """Raise InputError for a rate that no video can be written at."""
    if not RATES[0] <= rate <= RATES[1]:
        shown = f"{float(rate):.6g} frames/s, where {float(RATES[0]):.3f} to {RATES[1]} can be written"
        raise InputError(f"{name}: has {shown}. Make it again at a usual rate (ffmpeg -i IN -r 25 OUT).")
