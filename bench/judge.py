"""Hold finished videos against their references: similarity gate and checks, one verdict for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bench.beside import AGAIN, ANOTHER_SEED, distance_of_files, nearer
from bench.boxes import find_boxes, rule_of
from bench.checks import Check, form_checks, metric_checks, shown_checks
from bench.control import Control
from bench.frame_metrics import FrameMetrics
from bench.pose import PRESENTER, load_pose_model
from bench.score import GATE
from bench.similarity import Extractor
from bench.vmaf import VmafError, vmaf
from engines.artifact import fingerprint, key
from engines.errors import InputError, entries_of
from generators.resize import FITS
from pipeline.batch.dataset import VIDEO_SUFFIXES, stem_of
from pipeline.video.reader import Clip, Form, VideoReader, colours_of

FOLDER = Path(__file__).parent
DECIDE = ("boxes", "checks", "control", "described", "frame_metrics", "judge", "judging", "local")
DECIDE += ("pose", "similarity")
CODE = [FOLDER / f"{name}.py" for name in DECIDE]
RATE_ROUNDED = Fraction(1, 500)  # of a rate: what files' time bases and averages are off by


@dataclass(frozen=True)
class Judge:
    """A judge of videos: its extractors, which all must find a cosine within the gate; its pose model."""

    extractors: list[Extractor]
    gate: tuple[float, float] = GATE
    pose_model: str = PRESENTER

    @property
    def identity(self) -> str:
        """A key that changes with whatever decides a verdict: extractors, gate, pose model, code, limits."""
        specs = [asdict(each.spec) for each in [*self.extractors, load_pose_model(self.pose_model)]]
        return key({"specs": specs, "gate": self.gate, "code": fingerprint(CODE)})

    def compare(
        self,
        reference: Clip | VideoReader,
        candidate: Clip | VideoReader,
        skeletons: Iterable[np.ndarray] = (),
        rule: str = "cover",
    ) -> dict:
        """Compare two videos: figures, checks and verdict as plain data; a longer one by its beginning.

        All are read once, a frame at a time. skeletons: the frames of the skeleton video: hands and face
        get figures of their own, and control fidelity is measured (bench/control.py); one that is too short
        gives none. rule: of FITS, by which they were fitted to the generator's size. InputError: a video is
        damaged.
        """
        size = (reference.width, reference.height)
        same_size = size == (candidate.width, candidate.height)
        pairs = {each.name: each.pair() for each in self.extractors}
        differences, control, counts = FrameMetrics(), None, [0, 0]
        for wanted, found, skeleton in zip_longest(reference, candidate, skeletons):
            counts[0] += wanted is not None
            counts[1] += found is not None
            if wanted is None or found is None:
                continue
            for pair in pairs.values():
                pair.update(wanted, found)
            if same_size and skeleton is not None:
                drawn = FITS[rule](skeleton[None], *size)[0]
                control = control or Control(load_pose_model(self.pose_model))
                control.update(drawn, wanted, found)
            if same_size:
                differences.update(wanted, found, None if skeleton is None else find_boxes(drawn))
        forms = [
            Form(count, each.fps, (each.width, each.height))
            for count, each in zip(counts, (reference, candidate), strict=True)
        ]
        checks = form_checks(*forms)
        if isinstance(reference, VideoReader) and isinstance(candidate, VideoReader):
            checks += shown_checks(reference.info, candidate.info)  # a clip in memory has no times of its own
        cosines = {name: pair.summary() for name, pair in pairs.items()}
        metrics, per_frame = differences.summary() if same_size else ({}, {})
        metrics |= control.summary() if control else {}
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

    def compare_files(self, reference: Path, candidate: Path, skeletons: Path | None = None) -> dict:
        """Compare two video files; where their colour matrices differ, add what a tag-blind reader sees.

        OpenCV 4 is such a reader; what a contest's own judge reads with is not known. InputError: one of the
        files cannot be read.
        """
        found = self._compare_read((reference, candidate), skeletons)
        coded = [colours_of(path) for path in (reference, candidate)]
        lossless = [each.pixel_format.startswith(("gbr", "rgb", "bgr")) for each in coded]
        for check in found["checks"] if lossless[0] != lossless[1] else ():
            if not check["passes"] and check["name"].startswith("temporal_error"):
                lossy = "the reference" if lossless[1] else "the candidate"
                number = check["value"].partition(" ")[0]
                check["value"] = (
                    f"{number} ({lossy} is lossy, the other is not, which may be all: make both alike)"
                )
        if coded[0].matrix == coded[1].matrix:
            return found
        seen = self._compare_read((reference, candidate), tag_blind=True)
        found["tag_blind"] = {
            "coded": [str(each) for each in coded],
            "cosine": {name: each["value"] for name, each in seen["cosine"].items()},
            "psnr": seen["metrics"].get("psnr"),
        }
        for name, cosine in seen["cosine"].items():
            check = self._gate_check(f"{name}, colour tags ignored", cosine)
            told = f"{check.value} ({coded[1]}, the reference {coded[0]})"
            found["checks"].append(asdict(replace(check, value=told)))
            found["passes"] = found["passes"] and check.passes
        return found

    def _compare_read(
        self, both: tuple[Path, Path], skeletons: Path | None = None, tag_blind: bool = False
    ) -> dict:
        with ExitStack() as stack:
            readers = [stack.enter_context(VideoReader(path, tag_blind=tag_blind)) for path in both]
            if not skeletons:
                return self.compare(*readers)
            drawn = stack.enter_context(VideoReader(skeletons, square=True))
            own = abs(readers[0].fps / drawn.fps - 1) <= RATE_ROUNDED
            shown = drawn.at_rate(drawn.fps if own else readers[0].fps)
            return self.compare(*readers, shown, rule_of(both[1]))

    def _gate_check(self, name: str, cosine: Mapping) -> Check:
        value = "not finite" if cosine["value"] is None else f"{cosine['value']:.5f}"
        least, most = self.gate
        if cosine["value"] is not None and cosine["value"] > most:
            value += " (no cosine is above 1, so this one scores nothing; is the extractor right?)"
        return Check(f"similarity ({name})", value, f">= {least} and <= {most}", cosine["passes"])


@dataclass(frozen=True)
class Folders:
    """Folders of references and of candidates, as <id>.mp4 or another video, and skeleton videos by id.

    beside: folders of the same videos made otherwise, whose distance from the reference is a scale: another
    seed, the base again (bench/beside.py).
    """

    reference: Path
    candidate: Path
    skeletons: Mapping[str, Path]
    beside: Mapping[str, Path] = field(default_factory=dict)


def judge_folder(judge: Judge, folders: Folders, say: Callable[[str], None]) -> list[dict]:
    """Compare every video of either folder; what cannot be compared is "failed" and does not pass.

    InputError: the candidates' folder has no video, or as find_wanted.
    """
    (wanted, beside), found = find_wanted(folders.reference, folders.beside), videos_in(folders.candidate)
    comparisons = []
    for name in sorted(wanted | found):
        line = _judge_one(judge, name, folders, (wanted, found), say)
        if line["status"] == "judged":
            others = {each: videos[name] for each, videos in beside.items() if name in videos}
            _put_beside(line, wanted[name], others, say)
        say(f"{name}: {'passes' if line['passes'] else '; '.join(reasons([line]))}")
        comparisons.append(line)
    return comparisons


def find_wanted(
    reference: Path, beside: Mapping[str, Path]
) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Find the references, and by name of each folder beside them the videos in it.

    InputError: a folder has no video, or one beside lacks a reference's; of the base again one video will do.
    """
    wanted, found = videos_in(reference), {name: videos_in(folder) for name, folder in beside.items()}
    for name, others in found.items():
        missing = sorted(wanted.keys() - others.keys())
        if missing if name != AGAIN else not wanted.keys() & others.keys():
            raise InputError(f"{beside[name]}, {name}, lacks {', '.join(missing)}")
    return wanted, found


def videos_in(folder: Path) -> dict[str, Path]:
    """Find the videos of a folder by name without suffix, in Unicode's NFC as ids of requests are.

    InputError: there is none, or there are two of a name, or the folder cannot be listed.
    """
    videos: dict[str, Path] = {}
    for path in entries_of(folder, "it should hold videos"):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            name = stem_of(path)
            if name in videos:
                raise InputError(f"{folder} has two videos named {name}; keep one")
            videos[name] = path
    if not videos:
        raise InputError(f"{folder} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return videos


def reasons(comparisons: list[dict]) -> list[str]:
    """Say why videos did not pass, a text for each failed check."""
    texts = [f"{each['id']}: {each['error']}" for each in comparisons if each["error"]]
    for each in comparisons:
        failed = [check for check in each.get("checks", ()) if not check["passes"]]
        texts += [f"{each['id']}: {c['name']} {c['value']}, needs {c['limit']}" for c in failed]
    return texts


def similarity(comparisons: list[dict]) -> float | None:
    """Return the least cosine of all videos and extractors, or the largest if that is above 1, so none.

    None if one is missing: not evaluated is no pass.
    """
    values = [each["value"] for c in comparisons for each in c.get("cosine", {}).values()]
    complete = all(c["status"] == "judged" for c in comparisons) and None not in values
    if not values or not complete:
        return None
    return max(values) if max(values) > 1 else min(values)


def plain(value: object) -> object:
    """Replace numbers that JSON lacks, NaN and infinity, by None."""
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
        line |= {"status": "judged", **judge.compare_files(reference, candidate, folders.skeletons.get(name))}
        same = {check["name"]: check["passes"] for check in line["checks"]}
        comparable = same["frame count"] and same["size"]
        form = line["frames"], tuple(line["size"])
        line["metrics"]["vmaf"] = vmaf(reference, candidate, *form) if comparable else None
    except InputError as error:
        line["error"] = str(error)
    except VmafError as error:
        line["metrics"]["vmaf"] = None
        say(f"{name}: VMAF could not be measured: {error}")
    return line


def _put_beside(line: dict, reference: Path, others: Mapping[str, Path], say: Callable[[str], None]) -> None:
    """Add the distances of other videos, and the check of another seed's, which must be one that can be used.

    Of the base again a video that cannot be used is only said.
    """
    line["beside"] = {}
    for name, path in others.items():
        try:
            away = plain(distance_of_files(reference, path))
            if name == ANOTHER_SEED and line["metrics"].get("structure") is not None:
                check = nearer(line["metrics"], away, path)
                line["checks"].append(asdict(check))
                line["passes"] = line["passes"] and check.passes
            line["beside"][name] = away
        except InputError as error:
            if name == ANOTHER_SEED:
                line |= {"error": f"{name}: {error}", "passes": False}
            else:
                say(f"{line['id']}: {name} is left out: {error}")
