"""Hold finished videos against their references: similarity gate and checks, one verdict for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.beside import ANOTHER_SEED, distance_of_files, nearer
from bench.boxes import find_boxes
from bench.checks import Check, form_checks, metric_checks
from bench.companions import companions
from bench.score import GATE
from bench.similarity import Extractor
from bench.vmaf import VmafError, vmaf
from pipeline.data import VIDEO_SUFFIXES
from pipeline.errors import InputError
from pipeline.video import Clip, Form, read


@dataclass(frozen=True)
class Judge:
    """The extractors that all must find a cosine within the gate."""

    extractors: list[Extractor]
    gate: tuple[float, float] = GATE

    def compare(self, reference: Clip, candidate: Clip, skeletons: np.ndarray | None = None) -> dict:
        """Figures, checks and verdict on two clips, as plain data; the longer one is judged by its beginning.

        skeletons: the frames of the skeleton video, if hands and face shall have figures of their own.
        """
        forms = [Form.of(clip) for clip in (reference, candidate)]
        checks = form_checks(*forms)
        count = min(form.frames for form in forms)
        wanted, found = reference.frames[:count], candidate.frames[:count]
        cosines = {each.name: each.cosine(wanted, found) for each in self.extractors}
        metrics, per_frame = {}, {}
        if forms[0].size == forms[1].size:
            boxes = None
            if skeletons is not None and len(skeletons) >= count:
                boxes = find_boxes(skeletons[:count], forms[0].size)
            metrics, per_frame = companions(wanted, found, boxes)
            checks += metric_checks(metrics)
        cosine = {name: each.to_json(self.gate) for name, each in cosines.items()}
        per_frame["cosine"] = {name: each.frames for name, each in cosines.items() if each.frames}
        return plain({
            "frames": forms[1].frames,
            "fps": str(candidate.fps),
            "size": list(forms[1].size),
            "cosine": cosine,
            "metrics": metrics,
            "checks": [asdict(check) for check in [*map(self._gate_check, cosine, cosine.values()), *checks]],
            "passes": all(each["passes"] for each in cosine.values()) and all(c.passes for c in checks),
            "per_frame": per_frame,
        })  # fmt: skip

    def _gate_check(self, name: str, cosine: Mapping) -> Check:
        value = "not finite" if cosine["value"] is None else f"{cosine['value']:.5f}"
        least, most = self.gate
        return Check(f"similarity ({name})", value, f">= {least} and <= {most}", cosine["passes"])


@dataclass(frozen=True)
class Folders:
    """Where references and candidates lie as <id>.mp4 (or another video), and skeleton videos by id.

    beside: folders of the same videos made otherwise, whose distance from the reference is a scale: another
    seed, the base again (bench/beside.py).
    """

    reference: Path
    candidate: Path
    skeletons: Mapping[str, Path]
    beside: Mapping[str, Path] = field(default_factory=dict)


def judge_folder(judge: Judge, folders: Folders, say: Callable[[str], None]) -> list[dict]:
    """A comparison for every video of either folder; what cannot be compared is "failed" and does not pass.

    InputError if one of the folders has no video, or one beside them lacks a reference's.
    """
    wanted, found = videos_in(folders.reference), videos_in(folders.candidate)
    beside = {name: videos_in(folder) for name, folder in folders.beside.items()}
    for name, others in beside.items():
        if missing := sorted(wanted.keys() - others.keys()):
            raise InputError(f"{folders.beside[name]}, {name}, lacks {', '.join(missing)}")
    comparisons = []
    for name in sorted(wanted | found):
        line = _judge_one(judge, name, folders, (wanted, found), say)
        if line["status"] == "judged":
            _put_beside(line, wanted[name], {each: others[name] for each, others in beside.items()})
        say(f"{name}: {'passes' if line['passes'] else '; '.join(reasons([line]))}")
        comparisons.append(line)
    return comparisons


def videos_in(folder: Path) -> dict[str, Path]:
    """The videos of a folder by name without suffix. InputError if there is none, or two of a name."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; it should hold videos")
    videos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            if path.stem in videos:
                raise InputError(f"{folder} has two videos named {path.stem}; keep one")
            videos[path.stem] = path
    if not videos:
        raise InputError(f"{folder} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return videos


def reasons(comparisons: list[dict]) -> list[str]:
    """In words, why videos did not pass."""
    texts = [f"{each['id']}: {each['error']}" for each in comparisons if each["error"]]
    for each in comparisons:
        failed = [check for check in each.get("checks", ()) if not check["passes"]]
        texts += [f"{each['id']}: {c['name']} {c['value']}, needs {c['limit']}" for c in failed]
    return texts


def similarity(comparisons: list[dict]) -> float | None:
    """The least cosine of all videos and extractors; None if one is missing: not evaluated is no pass."""
    values = [each["value"] for c in comparisons for each in c.get("cosine", {}).values()]
    complete = all(c["status"] == "judged" for c in comparisons) and None not in values
    return min(values) if values and complete else None


def plain(value: object) -> object:
    """The value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _judge_one(
    judge: Judge,
    name: str,
    folders: Folders,
    videos: tuple[Mapping[str, Path], Mapping[str, Path]],
    say: Callable[[str], None],
) -> dict:
    reference, candidate = (each.get(name) for each in videos)
    line = {"id": name, "status": "failed", "error": None, "passes": False}
    line |= {"reference": str(reference) if reference else None, "candidate": str(candidate or "") or None}
    try:
        if reference is None or candidate is None:
            lacking = folders.reference if reference is None else folders.candidate
            raise InputError(f"no video of that name in {lacking}")
        skeletons = folders.skeletons.get(name)
        skeleton_frames = read(skeletons).frames if skeletons else None
        clips = read(reference), read(candidate)
        line |= {"status": "judged", **judge.compare(*clips, skeleton_frames)}
        line["metrics"]["vmaf"] = vmaf(reference, candidate, tuple(map(Form.of, clips)))
    except InputError as error:
        line["error"] = str(error)
    except VmafError as error:
        line["metrics"]["vmaf"] = None
        say(f"{name}: VMAF could not be measured: {error}")
    return line


def _put_beside(line: dict, reference: Path, others: Mapping[str, Path]) -> None:
    """Add the distances of other videos, and the check of another seed's. InputError."""
    line["beside"] = {name: plain(distance_of_files(reference, path)) for name, path in others.items()}
    if ANOTHER_SEED in others and line["metrics"].get("structure") is not None:
        check = nearer(line["metrics"], line["beside"][ANOTHER_SEED])
        line["checks"].append(asdict(check))
        line["passes"] = line["passes"] and check.passes
