"""What the similarity gate and the companion checks catch: every defect on clips, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np

from bench.defects import DEFECTS, Defect, Scene
from bench.judge import Judge, videos_in
from pipeline.errors import InputError
from pipeline.video import Clip, read

MOST_FRAMES = 96
INTRODUCTION = """# What the similarity gate and the checks catch

Made by `python -m bench sensitivity --out docs/sensitivity.md` on the base model's videos of `data/sample`.
Cosines are given from the least to the largest of the videos, other figures by their medians. What catches a
change in some of the videos only says in how many. Harmless changes come first: nothing may catch them.
"""

METRICS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "temporal_error": "temporal error",
    "motion_correlation": "motion correlation",
    "sharpness": "sharpness",
}


@dataclass(frozen=True)
class Row:
    """A defect over several scenes: the comparisons, one for each."""

    defect: Defect
    comparisons: list[dict]

    def cosine(self, extractor: str) -> tuple[float, float]:
        """The least and the largest over scenes."""
        values = [each["cosine"][extractor]["value"] for each in self.comparisons]
        return min(values), max(values)

    def caught_by(self, number: int) -> list[str]:
        """The names of the checks that one scene's comparison failed, the gate's among them."""
        return [check["name"] for check in self.comparisons[number]["checks"] if not check["passes"]]

    @property
    def as_wanted(self) -> bool:
        """Whether a harmless change passed, or a defect was caught, in every scene."""
        return all(each["passes"] == self.defect.harmless for each in self.comparisons)


def scenes_of(data: Path, other_engine: Path | None = None, most: int = MOST_FRAMES) -> list[Scene]:
    """A scene for each reference video of a data folder, at most so many frames of it.

    other_engine: a folder of the same videos made by another engine. Another person is the next video's, the
    other pose is the clip's own, half its length later. InputError if there are not two videos of a size.
    """
    videos = videos_in(data / "outputs")
    clips = [read(path).frames[:most] for path in videos.values()]
    if len(clips) < 2 or len({clip.shape[1:] for clip in clips}) > 1:
        raise InputError(f"{data / 'outputs'}: the sensitivity table needs two or more videos of one size")
    again = videos_in(other_engine) if other_engine else {}
    scenes = []
    for number, (name, clip) in enumerate(zip(videos, clips, strict=True)):
        count, other = len(clip), clips[(number + 1) % len(clips)]
        person = np.resize(other, clip.shape)  # repeated where it is shorter
        rerun = read(again[name]).frames[:count] if name in again else None
        scenes.append(Scene(clip, person, np.roll(clip, count // 2, 0), rerun))
    return scenes


def measure(scenes: Sequence[Scene], judge: Judge, say: Callable[[str], None]) -> list[Row]:
    """A row for each defect that all scenes can have."""
    rate, rows = Fraction(24), []
    for defect in DEFECTS:
        say(f"sensitivity: {defect.name}")
        changed = [defect.change(scene) for scene in scenes]
        if any(frames is None for frames in changed):
            continue
        pairs = [(Clip(s.frames, rate), Clip(f, rate)) for s, f in zip(scenes, changed, strict=True)]
        rows.append(Row(defect, [judge.compare(*pair) for pair in pairs]))
    return rows


def table(rows: Iterable[Row], judge: Judge) -> str:
    """The rows as Markdown: cosines from least to largest, medians of metrics, and what caught the defect."""
    names = [extractor.name for extractor in judge.extractors]
    heads = ["change", *(f"cosine ({name})" for name in names), *METRICS.values(), "caught by"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cosines = ["{:.4f} to {:.4f}".format(*row.cosine(name)) for name in names]
        metrics = [_median(row, metric) for metric in METRICS]
        lines.append(f"| {' | '.join([row.defect.name, *cosines, *metrics, _caught(row)])} |")
    return "\n".join(lines)


def _median(row: Row, metric: str) -> str:
    values = [each["metrics"][metric] for each in row.comparisons]
    known = [value for value in values if value is not None]
    return f"{median(known):.3g}" if known else "none"


def _caught(row: Row) -> str:
    """What failed, each with the number of scenes if not in all."""
    scenes = range(len(row.comparisons))
    found: dict[str, int] = {}
    for number in scenes:
        for name in row.caught_by(number):
            found[name] = found.get(name, 0) + 1
    if row.defect.harmless and not found:
        return "nothing, as it should"
    total = len(scenes)
    parts = [name if count == total else f"{name} ({count} of {total})" for name, count in found.items()]
    return ", ".join(parts) or "**nothing**"
