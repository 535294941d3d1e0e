"""The figures of highlights and covers on real footage: whole faces, flaws, jitter, lag, speed."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.similarity import load_extractor
from finish.faces import find_faces
from finish.fit import fitted
from finish.following import FOLLOW, Follow, follow
from finish.heads import rank_correlation
from finish.highlights import PRUNE, everything, highlights
from finish.predictions import Frames
from finish.pruning import WEIGHTS, flaws, kept
from finish.score import score_video
from finish.scorer import BATCH, Scorer, start_scorer
from finish.signals import Eyes, measure
from finish.watching import Gaze, Watched, watch
from lab.finish.degrade import COST, degrade, quality
from lab.finish.footage import FPS, SIZE, Part, Reel, read_parts
from lab.finish.pictures import HELD_OUT, crop, draw, random_strengths, read_photos, videos_in
from lab.finish.sheets import reel_sheet
from lab.finish.ways import chosen, mean_of

BEDS = {"chosen on": False, "held out": True}  # whether options were chosen without that footage
RATIOS = {"9:16": (9, 16), "1:1": (1, 1), "3:1": (3, 1)}
ROOM = 0.85  # of the box's sides that a face takes whose edges are some pixels from the box's
SURE, SMOOTH, PRUNED = (0.7, 0.8, 0.9, 0.97, 0.99), (0.2, 0.4, 0.8, 1.6), (0.0, 0.05, 0.1, 0.2)
WHO = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
Say = Callable[[str], None]


@dataclass(frozen=True)
class Seen:
    """A video with what was seen in it; sparse: what that mode chooses, by ratio."""

    reel: Reel
    watched: Watched
    sparse: dict[str, list[dict]]
    seconds: float


def evaluate_real(footage: Path, out: Path, reels: int, seconds: float, say: Say) -> dict:
    """All figures on videos made of the footage, by BEDS; real.json and a sheet of each go to out."""
    out.mkdir(parents=True, exist_ok=True)
    scorer = start_scorer("torch", "fp32", "cpu", say)
    gaze, eyes = Gaze(scorer, find_faces(None, say)), Eyes(scorer, load_extractor("stfn"))
    figures = {}
    for bed, held_out in BEDS.items():
        if parts := read_parts(footage, held_out):
            seen = list(_see(parts, (gaze, eyes), out / "reel.mp4", reels, seconds, say))
            boxes = {name: follow(seen[0].watched, ratio) for name, ratio in RATIOS.items()}
            reel_sheet(seen[0].reel, boxes, out / f"{bed.replace(' ', '-')}.png")
            figures[bed] = _figures(seen, parts)
            if not held_out:
                figures[bed]["defaults"] = defaults(seen)
    (out / "real.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _see(
    parts: Sequence[Part], looks: tuple[Gaze, Eyes], path: Path, reels: int, seconds: float, say: Say
) -> Iterator[Seen]:
    gaze, eyes = looks
    for number in range(reels):
        reel = Reel(HELD_OUT + number, parts, seconds)
        reel.write(path)
        started = _worked()
        watched = watch(path, gaze)
        took = float((_worked() - started)[0])
        signals = measure(path, eyes)
        yield Seen(reel, watched, {name: highlights(signals, ratio) for name, ratio in RATIOS.items()}, took)
        say(f"footage: {number + 1}/{reels}: {len(reel.moments) / FPS / took:.1f} x real time")
    path.unlink()


def _figures(seen: Sequence[Seen], parts: Sequence[Part]) -> dict:
    return {
        "videos": len(seen),
        "frames": sum(len(each.reel.moments) for each in seen),
        "sources": sorted({part.source for part in parts}),
        "times real time": float(np.median([len(s.reel.moments) / FPS / s.seconds for s in seen])),
        "faces": {name: faces_kept(seen, ratio) for name, ratio in RATIOS.items()},
        "cuts": cuts_found(seen),
        "flaws": flaws_found(seen),
        "score": {name: ways(seen, name) for name in RATIOS},
    }


def faces_kept(seen: Sequence[Seen], ratio: tuple[float, float], plan: Follow = FOLLOW) -> dict:
    """Share of frames with a whole face that the box has room for in which it holds it, and how it moves.

    smaller ones: faces of ROOM of the box's sides at the most, which marks by eye can tell to be whole.
    jitter: mean change of the box's speed from frame to frame within shots, in thousandths of the picture.
    lag: frames by which the box's path follows the face's best, over shots in which it turns to and fro.
    """
    whole, roomy, centred, jitter, lags = [], [], [], [], []
    shape = np.array([1, ratio[1] / ratio[0]])
    axis = 0 if shape[1] > SIZE[1] / SIZE[0] else 1
    for each in seen:
        boxes, reel = follow(each.watched, ratio, plan), each.reel
        found = [reel.subject(n) for n in range(len(reel.moments))]
        fixed = (np.array(SIZE) - boxes[0, 2] * shape) / 2
        for n, (shows, box) in enumerate(found):
            side = boxes[n, 2] * shape
            if shows != "face" or box is None or (box[2:] - box[:2] > side - 2).any():
                continue
            if (box[:2] < 0).any() or (box[2:] > SIZE).any():  # a part of it is not in the picture
                continue
            for corner, held in ((boxes[n, :2], whole), (fixed, centred)):
                held.append(bool((box[:2] >= corner - 1).all() and (box[2:] <= corner + side + 1).all()))
            if (box[2:] - box[:2] <= ROOM * side).all():
                roomy.append(whole[-1])
        edges = [0, *reel.cuts, len(found)]
        for first, last in zip(edges, edges[1:], strict=False):
            path = boxes[first:last, axis] + boxes[0, 2] * shape[axis] / 2
            jitter.append(1000 * np.abs(np.diff(path, 2)).mean() / SIZE[axis] if len(path) > 2 else 0.0)
            moves = reel.shots[reel.moments[first].shot].part.boxes
            if (
                found[first][0] == "face"
                and last - first > 50
                and found[first][1] is not None
                and np.ptp(moves)
            ):
                face = np.array([box[axis::2].mean() for _, box in found[first:last]])
                if np.ptp(path) > 0.04 * SIZE[axis]:
                    lags.append(_lag(face, path))
    return {
        "whole": _mean(whole), "whole in the middle": _mean(centred), "frames": len(whole),
        "whole, of smaller ones": _mean(roomy), "smaller ones": len(roomy),
        "jitter": float(np.mean(jitter)), "lag, mean": _mean(lags),
        "lag, shots": len(lags),
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _lag(face: np.ndarray, box: np.ndarray, most: int = 12) -> int:
    """The shift in frames at which a box's path (N,) is nearest to a face's."""

    def apart(shift: int) -> float:
        inner = slice(most, len(face) - most)
        a, b = face[inner], box[most + shift : len(box) - most + shift]
        return float(np.abs((a - a.mean()) - (b - b.mean())).mean())

    return min(range(-most, most + 1), key=lambda shift: (apart(shift), abs(shift)))


def cuts_found(seen: Sequence[Seen]) -> dict[str, float]:
    """How many true cuts are found in their frame, and how many found ones are true."""
    pairs = [(set(each.reel.cuts), set(np.flatnonzero(each.watched.cut).tolist())) for each in seen]
    hits = sum(len(true & found) for true, found in pairs)
    return {
        "recall": hits / sum(len(true) for true, _ in pairs),
        "precision": hits / max(1, sum(len(found) for _, found in pairs)),
        "cuts": sum(len(true) for true, _ in pairs),
    }


def flaws_found(seen: Sequence[Seen]) -> dict[str, dict[str, float]]:
    """For each kind the share of its frames that is found as such, and of flawless frames that is."""
    found, true = {}, np.concatenate([each.reel.flaws for each in seen])
    for kind in sorted(set(true) & set(WEIGHTS)):
        which = np.concatenate([flaws(each.watched)[kind] for each in seen])
        found[kind] = {
            "found": float(which[true == kind].mean()),
            "of flawless": float(which[true == ""].mean()),
        }
    left = np.concatenate([~kept(each.watched, float(PRUNE)) for each in seen])
    found["left out"] = {
        "found": float(left[true != ""].mean()),
        "of flawless": float(left[true == ""].mean()),
    }
    return found


def ways(seen: Sequence[Seen], name: str) -> dict[str, float]:
    """100 F of both modes, of ours without faces, and of plain rules."""
    ratio = RATIOS[name]
    made = [chosen(each.watched, each.sparse[name], ratio) for each in seen]
    return mean_of([
        {way: _f(each.reel, boxes, ratio) / 100 for way, boxes in found.items()}
        for each, found in zip(seen, made, strict=True)
    ])  # fmt: skip


def defaults(seen: Sequence[Seen]) -> dict[str, dict[str, float]]:
    """100 F in 9:16, and whole faces where they depend on it, for other settings."""
    ratio = RATIOS["9:16"]

    def score(prune: float, plan: Follow) -> float:
        return float(np.mean([_f(s.reel, everything(s.watched, ratio, prune, plan), ratio) for s in seen]))

    return {
        "prune": {str(value): score(value, Follow()) for value in PRUNED},
        "sure": {str(value): score(float(PRUNE), Follow(sure=value)) for value in SURE},
        "smooth": {str(value): score(float(PRUNE), Follow(smooth=value)) for value in SMOOTH},
        "jitter": {str(value): faces_kept(seen, ratio, Follow(smooth=value))["jitter"] for value in SMOOTH},
    }


def order_real(photos: Path, scorer: Scorer, versions: int = 8, crops: int = 40) -> dict:
    """Rank correlations with the true worth of degraded parts of photos, and beside rendered pictures."""
    real, random = read_photos(photos), np.random.default_rng(0)
    steps, by_kind = np.linspace(0, 1, 6), {}
    own = [crop(real, n) for n in range(crops)]
    others = [cv2.resize(own[n - 1], own[n].shape[1::-1]) for n in range(crops)]

    def score(pictures: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([scorer(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])

    for kind in (name for name in COST if name != "eyes"):
        found = [
            score([degrade(a, {kind: s}, b, random) for s in steps]) for a, b in zip(own, others, strict=True)
        ]
        by_kind[kind] = float(np.mean([rank_correlation(each, -steps) for each in found]))
    mixed = {}
    for source in ("real", "rendered"):
        pictures, truths = [], []
        for n in range(crops):
            a = own[n] if source == "real" else draw(HELD_OUT + n)
            b = cv2.resize(own[n - 1] if source == "real" else draw(HELD_OUT + n + 1), a.shape[1::-1])
            for strengths in [{}, *(random_strengths(random, False) for _ in range(versions - 1))]:
                pictures.append(degrade(a, strengths, b, random))
                truths.append(quality(strengths))
        mixed[source] = score(pictures), np.array(truths)
    clips = []
    for frames in videos_in(photos):
        pictures, truths = [], []
        for n, frame in enumerate(frames):
            small = fitted(frame, (256, round(256 * frame.shape[0] / frame.shape[1])))
            other = cv2.resize(own[n % crops], small.shape[1::-1])
            for strengths in [{}, *(random_strengths(random, False) for _ in range(3))]:
                pictures.append(degrade(small, strengths, other, random))
                truths.append(quality(strengths))
        clips.append(rank_correlation(score(pictures), np.array(truths)))
    a, b = mixed["real"], mixed["rendered"]
    return {
        "real": rank_correlation(*a), "rendered": rank_correlation(*b),
        "both together": rank_correlation(*(np.concatenate(pair) for pair in zip(a, b, strict=True))),
        "score above worth, real": float((a[0] - a[1]).mean()),
        "score above worth, rendered": float((b[0] - b[1]).mean()),
        "within a video": float(np.mean(clips)) if clips else None, "videos": len(clips),
        "within": by_kind, "within, mean": float(np.mean(list(by_kind.values()))), "pictures": 2 * len(a[0]),
    }  # fmt: skip


def _worked() -> np.ndarray:
    """Seconds of processors so far (2,): of this process, and of those that it has waited for."""
    used = [resource.getrusage(who) for who in WHO]
    return np.array([each.ru_utime + each.ru_stime for each in used])


def _f(reel: Reel, made: list[dict], ratio: tuple[float, float]) -> float:
    return 100 * score_video(made, reel.truth(ratio), Frames(len(reel.moments), *SIZE, ratio)).f
