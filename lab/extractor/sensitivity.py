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
from bench.judge import Judge
from bench.video_folders import videos_in
from engines.errors import InputError
from generators.resize import FITS
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
CONTROL = ("control_reference", "control_candidate", "control_loss", "control_arms_loss")
CONTROL_CHECKS = {"control_loss", "control_arms_loss", "control_arms_error"}
CONTROL_HEADS = [
    "change", "base follows, %", "candidate follows, %", "lost, points", "lost of arms",
    "arms off, % of torso",
    "at most",
    "caught by control", "by the other checks", "by control alone",
]  # fmt: skip
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
    """Folders: base videos made by another engine, of another seed, others that must pass or be caught;
    camera footage. most: frames of a video. only: the names of the changes to make; all if empty.
    """

    other_engine: Path | None = None
    other_seed: Path | None = None
    harmless: Sequence[Path] = ()
    harmful: Sequence[Path] = ()
    real: Path | None = None
    only: Sequence[str] = ()
    most: int = MOST_FRAMES


def measure_all(
    data: Path, material: Material, judge: Judge, say: Callable[[str], None]
) -> dict[str, list[Row]]:
    """Return rows by group: of a data folder's videos, and of the camera footage if there is some.
    InputError.
    """
    made = {folder.name: folder for folder in (*material.harmless, *material.harmful)}
    changes = changes_of(
        *([folder.name for folder in kind] for kind in (material.harmless, material.harmful))
    )
    changes = [each for each in changes if not material.only or each.name in material.only]
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
        drawn = faces = None
        if name in skeletons:
            drawn = FITS["cover"](read(skeletons[name]).frames[:count], *clip.shape[2:0:-1])
            faces = face_places(find_boxes(each) for each in drawn)
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


def changes_of(harmless: Sequence[str], harmful: Sequence[str] = ()) -> list[Defect]:
    """Return all changes: those of every scene, another seed, and folders that must pass or not, by name."""
    kinds = {**dict.fromkeys(harmless, Kind.HARMLESS), **dict.fromkeys([ANOTHER_SEED, *harmful], Kind.LOOK)}
    return [
        *DEFECTS,
        *PLACES,
        *(Defect(name, partial(_made, name=name), kind) for name, kind in kinds.items()),
    ]


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


def control_table(rows: Sequence[Row]) -> str:
    """Return what control fidelity says of each row, beside what the other checks do; "" if it says nothing.

    Shares are medians over the videos in which the pose model finds the reference's joints; "alone" are
    videos that no other check catches.
    """
    lines = [f"| {' | '.join(CONTROL_HEADS)} |", "|---" * len(CONTROL_HEADS) + "|"]
    for row in rows:
        scenes = range(len(row.comparisons))
        seen = [i for i in scenes if row.comparisons[i]["metrics"].get("control_loss") is not None]
        if not seen:
            continue
        found = [row.comparisons[i]["metrics"] for i in seen]
        shares = [f"{100 * median(each[name] for each in found):.1f}" for name in CONTROL]
        errors = [each["control_arms_error"] or 0.0 for each in found]
        shares += [f"{median(errors):.2f}", f"{max(errors):.2f}"]
        names = [set(row.caught_by(i)) for i in seen]
        control = [bool(each & CONTROL_CHECKS) for each in names]
        others = [bool(each - CONTROL_CHECKS) for each in names]
        alone = sum(own and not other for own, other in zip(control, others, strict=True))
        caught = [f"{count} of {len(seen)}" for count in (sum(control), sum(others), alone)]
        lines.append(f"| {' | '.join([row.defect.name, *shares, *caught])} |")
    return "\n".join(lines) if len(lines) > 2 else ""


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
