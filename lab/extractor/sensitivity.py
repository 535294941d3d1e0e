"""Measure what the similarity gate and the other checks catch: every defect on clips, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from bench.beside import ANOTHER_SEED
from bench.boxes import find_boxes
from bench.judge import Judge, videos_in
from engines.errors import InputError
from lab.extractor.defects import DEFECTS, Defect, Kind, Scene
from lab.extractor.drawn import PLACES, face_places
from lab.extractor.footage import scenes_of_footage
from pipeline.video.reader import Clip, read

MOST_FRAMES = 96
INTRODUCTION = """# What the similarity gate and the checks catch

Made by `python -m lab.extractor sensitivity` on the base model's videos (rendered people) and, with
`--real`, on camera footage. For each change: its cosine from the least to the largest video, in how many
videos the cosine alone stays within the gate, the medians of PSNR and of the error of structure, in how
many videos the checks catch it, and which do, most often first. Harmless changes come first: nothing may
catch them.

The cosine alone decides nothing about the same video: it pools features over the clip, and what it pools away
(a mirrored or reversed clip, a box over the person, half the resolution, another seed) passes its gate in as
many videos as the third column says. The contest asks for it; "the same video" is what all checks hold.
"""
HEADS = ["change", "cosine", "pass by cosine alone", "PSNR, dB", "structure", "caught", "by"]


@dataclass(frozen=True)
class Row:
    """A defect over several scenes: the comparisons, one for each."""

    defect: Defect
    comparisons: list[dict]

    def cosine(self, extractor: str) -> tuple[float, float]:
        """Return the least and the largest over scenes."""
        values = [each["cosine"][extractor]["value"] for each in self.comparisons]
        return min(values), max(values)

    def caught_by(self, number: int) -> list[str]:
        """Return the names of the checks that one scene's comparison failed, the gate's among them."""
        return [check["name"] for check in self.comparisons[number]["checks"] if not check["passes"]]

    @property
    def as_wanted(self) -> bool:
        """Return whether a harmless change passed, or a defect was caught, in every scene."""
        return all(each["passes"] == self.defect.harmless for each in self.comparisons)


@dataclass(frozen=True)
class Material:
    """Folders: base videos made by another engine, of another seed, others that must pass; camera footage.

    most: frames of a video.
    """

    other_engine: Path | None = None
    other_seed: Path | None = None
    harmless: Sequence[Path] = ()
    real: Path | None = None
    most: int = MOST_FRAMES


def measure_all(
    data: Path, material: Material, judge: Judge, say: Callable[[str], None]
) -> dict[str, list[Row]]:
    """Return rows by group: of a data folder's videos, and of the camera footage if there is some.
    InputError.
    """
    made = {folder.name: folder for folder in material.harmless}
    changes = changes_of(list(made))
    if material.other_seed:
        made[ANOTHER_SEED] = material.other_seed
    groups = {"rendered": scenes_of(data, material.other_engine, material.most, made)}
    if material.real:
        groups["real"] = scenes_of_footage(material.real, material.most)
    return {name: measure(scenes, judge, say, changes) for name, scenes in groups.items()}


def scenes_of(
    data: Path,
    other_engine: Path | None = None,
    most: int = MOST_FRAMES,
    made: Mapping[str, Path] | None = None,
) -> list[Scene]:
    """Make a scene of each reference video of a data folder, at most so many frames.

    other_engine: a folder of the same videos made by another engine; made: more such folders, by name.
    Another person is the next video's, the other pose is the clip's own, half its length later. InputError if
    there are not two videos of a size.
    """
    videos = videos_in(data / "outputs")
    clips = [read(path).frames[:most] for path in videos.values()]
    if len(clips) < 2 or len({clip.shape[1:] for clip in clips}) > 1:
        raise InputError(f"{data / 'outputs'}: the sensitivity table needs two or more videos of one size")
    again = videos_in(other_engine) if other_engine else {}
    others = {kind: videos_in(folder) for kind, folder in (made or {}).items()}
    skeletons = videos_in(data / "videos") if (data / "videos").is_dir() else {}
    scenes = []
    for number, (name, clip) in enumerate(zip(videos, clips, strict=True)):
        count, other = len(clip), clips[(number + 1) % len(clips)]
        person = np.resize(other, clip.shape)  # repeated where it is shorter
        rerun = read(again[name]).frames[:count] if name in again else None
        drawn = read(skeletons[name]).frames[:count] if name in skeletons else None
        size = clip.shape[2:0:-1]
        faces = None if drawn is None else face_places(find_boxes(each, size) for each in drawn)
        ways = {kind: read(paths[name]).frames[:count] for kind, paths in others.items() if name in paths}
        pose = np.roll(clip, count // 2, 0)
        scenes.append(Scene(clip, person, pose, rerun, drawn, faces, ways))
    return scenes


def measure(
    scenes: Sequence[Scene], judge: Judge, say: Callable[[str], None], changes: Sequence[Defect] = DEFECTS
) -> list[Row]:
    """Return a row for each change that any scene can have, harmless ones first."""
    rate, rows = Fraction(24), []
    for change in sorted(changes, key=lambda each: not each.harmless):
        say(f"sensitivity: {change.name}")
        pairs = [(scene, change.change(scene)) for scene in scenes]
        comparisons = [
            judge.compare(Clip(scene.frames, rate), Clip(frames, rate), _drawn(scene))
            for scene, frames in pairs
            if frames is not None
        ]
        if comparisons:
            rows.append(Row(change, comparisons))
    return rows


def _drawn(scene: Scene) -> Sequence[np.ndarray]:
    return () if scene.skeletons is None else scene.skeletons


def changes_of(harmless: Sequence[str]) -> list[Defect]:
    """Return all changes: those of every scene, another seed, and folders that must pass, by name."""
    folders = [Defect(name, partial(_made, name=name), Kind.HARMLESS) for name in harmless]
    seed = Defect(ANOTHER_SEED, partial(_made, name=ANOTHER_SEED), Kind.LOOK)
    return [*DEFECTS, *PLACES, seed, *folders]


def _made(scene: Scene, name: str) -> np.ndarray | None:
    return scene.made.get(name)


def table(groups: Mapping[str, Sequence[Row]], judge: Judge) -> str:
    """Return the rows of each group (rendered, real) as one Markdown table, a change's groups under each
    other.
    """
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    order = dict.fromkeys(row.defect.name for rows in groups.values() for row in rows)
    for name in order:
        for group, rows in groups.items():
            lines += [_line(row, group, judge) for row in rows if row.defect.name == name]
    return "\n".join(lines)


def _line(row: Row, group: str, judge: Judge) -> str:
    names = [extractor.name for extractor in judge.extractors]
    cosines = ", ".join("{:.4f} to {:.4f}".format(*row.cosine(name)) for name in names)
    count = len(row.comparisons)
    within = sum(all(c["passes"] for c in each["cosine"].values()) for each in row.comparisons)
    caught = sum(not each["passes"] for each in row.comparisons)
    figures = [_median(row, metric) for metric in ("psnr", "structure")]
    cells = [f"{row.defect.name} ({group})", cosines, f"{within} of {count}", *figures]
    return f"| {' | '.join([*cells, f'{caught} of {count}', _caught(row)])} |"


def _median(row: Row, metric: str) -> str:
    values = [each["metrics"][metric] for each in row.comparisons]
    known = [value for value in values if value is not None]
    return f"{median(known):.3g}" if known else "none"


def _caught(row: Row) -> str:
    """Return what failed in how many scenes, most often first."""
    found: dict[str, int] = {}
    for number in range(len(row.comparisons)):
        for name in row.caught_by(number):
            found[name] = found.get(name, 0) + 1
    if row.defect.harmless and not found:
        return "nothing, as it should"
    parts = [f"{name} {count}" for name, count in sorted(found.items(), key=lambda item: -item[1])]
    return ", ".join(parts) or "**nothing**"
