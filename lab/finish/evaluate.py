"""The figures of covers and highlights on rendered videos that nothing was trained on, and two pictures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.similarity import load_extractor
from engines.artifact import built_folder
from engines.onnx.export import Target
from finish.cover import Chosen, choose_cover
from finish.faces import find_faces
from finish.fit import fitted
from finish.heads import rank_correlation
from finish.highlights import highlights
from finish.predictions import Frames
from finish.score import score_video
from finish.scorer import BATCH, Cover, Scorer, start_scorer
from finish.signals import Eyes, measure
from finish.watching import Gaze, watch
from lab.finish.degrade import COST, degrade
from lab.finish.export import export_cover
from lab.finish.flawed import FlawedVideo
from lab.finish.pictures import HELD_OUT, VERSIONS, draw, graded, people_in
from lab.finish.sheets import boxes_sheet, covers_sheet
from lab.finish.ways import chosen, mean_of
from lab.finish.wide import SIZE, WideClip

RATIOS = {"9:16": (9, 16), "16:9": (16, 9)}
EQUAL = 0.02  # qualities that differ by less are as good as each other
WAYS = (("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8-fp32"),
        ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8-fp32"))  # fmt: skip
Say = Callable[[str], None]


@dataclass(frozen=True)
class Covered:
    """A video with the frame that each way chose, and the true qualities of its frames."""

    quality: np.ndarray
    chosen: Mapping[str, Chosen]
    first: np.ndarray

    def gain(self, way: str) -> float:
        """How much better the chosen frame is than the first."""
        return float(self.quality[self.chosen[way].frame] - self.quality[0])

    def pair(self) -> list[tuple[np.ndarray, float]]:
        """The first frame and the one that torch chose, with what they are worth."""
        chosen = self.chosen["torch:fp32"]
        return [(self.first, self.quality[0]), (chosen.picture, self.quality[chosen.frame])]


def evaluate(out: Path, videos: int, clips: int, say: Say) -> dict:
    """All figures; figures.json, covers.png and boxes.png go to out."""
    out.mkdir(parents=True, exist_ok=True)
    made = export_cover(["fp32", "fp16", "int8-fp32", "int8"], Target(built_folder(Cover.name), say))
    scorers = {f"{b}:{p}": start_scorer(b, p, "cpu", say) for b, p in WAYS}
    reference = scorers["torch:fp32"]
    figures = {
        "machine": {"load": os.getloadavg(), "threads": os.environ.get("OMP_NUM_THREADS", "all")},
        "bytes": {each.manifest["precision"]: each.path.stat().st_size for each in made},
        "order": order(reference, say),
        "speed": {way: speed(scorer) for way, scorer in scorers.items()},
        "covers": covers(scorers, videos, out, say),
        "highlights": stand_out(Gaze(reference, find_faces(None, say)), clips, out, say),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def order(scorer: Scorer, say: Say, pictures: int = 100) -> dict:
    """Rank correlations with the truth: over all pictures, and of each degradation in steps."""
    say("order: held-out pictures")
    held = graded(range(HELD_OUT, HELD_OUT + pictures), 0)
    scores = np.concatenate([scorer(held.pixels[i : i + BATCH]) for i in range(0, len(held.pixels), BATCH)])
    people = np.repeat([people_in(HELD_OUT + n)[1] > 0 for n in range(pictures)], VERSIONS)
    steps, random = np.linspace(0, 1, 6), np.random.default_rng(0)
    by_kind = {}
    for kind in (name for name in COST if name != "eyes"):
        found = []
        for seed in range(HELD_OUT + 1000, HELD_OUT + 1000 + pictures // 4):
            own, other = draw(seed), draw(seed + 1)
            behind = fitted(other, own.shape[1::-1])
            found.append(scorer([degrade(own, {kind: s}, behind, random) for s in steps]))
        by_kind[kind] = float(np.mean([rank_correlation(each, -steps) for each in found]))
    return {
        "all": rank_correlation(scores, held.quality),
        "people": rank_correlation(scores[people], held.quality[people]),
        "textures": rank_correlation(scores[~people], held.quality[~people]),
        "pictures": len(scores),
        "within": by_kind,
        "within, mean": float(np.mean(list(by_kind.values()))),
    }


def speed(scorer: Scorer, rounds: int = 8) -> float:
    """Pictures a second that are scored in batches; the median round after a warm-up."""
    pictures = list(np.random.default_rng(0).integers(0, 256, (BATCH, 360, 640, 3), np.uint8))
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        scorer(pictures)
        seconds.append(time.perf_counter() - started)
    return BATCH / float(np.median(seconds[1:]))


def covers(scorers: Mapping[str, Scorer], videos: int, out: Path, say: Say) -> dict:
    """Chosen frames against first ones, and each way against torch."""
    found = []
    for number in range(videos):
        video, path = FlawedVideo(HELD_OUT + 2000 + 2 * number), out / "video.mp4"
        video.write(path)
        chosen = {way: choose_cover(path, scorer) for way, scorer in scorers.items()}
        found.append(Covered(video.quality, chosen, next(video.frames())))
        say(f"covers: {number + 1}/{videos}")
    path.unlink()
    covers_sheet([each.pair() for each in found[:10]], out / "covers.png")
    gains = np.array([each.gain("torch:fp32") for each in found])
    best = np.array([each.quality.max() - each.quality[each.chosen["torch:fp32"].frame] for each in found])
    return {
        "videos": videos,
        "better than the first": float((gains > EQUAL).mean()),
        "worse than the first": float((gains < -EQUAL).mean()),
        "below the best frame, mean": float(best.mean()),
        "against torch": {way: agreement(found, way) for way in scorers},
    }


def agreement(found: list[Covered], way: str) -> dict[str, float]:
    """How often a way picks torch's frame, or one as good; how far its scores lie from torch's."""
    pairs = [(each.quality, each.chosen["torch:fp32"], each.chosen[way]) for each in found]
    apart = [abs(a.scores[n] - b.scores[n]) for _, a, b in pairs for n in a.scores]
    return {
        "same frame": float(np.mean([a.frame == b.frame for _, a, b in pairs])),
        "as good": float(np.mean([q[b.frame] > q[a.frame] - EQUAL for q, a, b in pairs])),
        "score difference, mean": float(np.mean(apart)),
        "score difference, most": float(np.max(apart)),
    }


def stand_out(gaze: Gaze, clips: int, out: Path, say: Say) -> dict:
    """100 F of both modes and of plain rules, by ratio; boxes.png goes to out."""
    eyes, rows, empty, drawn = Eyes(gaze.scorer, load_extractor("stfn")), {}, 0, False
    for number in range(clips):
        clip, path = WideClip(HELD_OUT + 3000 + number), out / "clip.mp4"
        clip.write(path)
        signals, watched = measure(path, eyes), watch(path, gaze)
        sparse = {name: highlights(signals, ratio) for name, ratio in RATIOS.items()}
        for name, ratio in RATIOS.items():
            frames, truth = Frames(clip.count, *SIZE, ratio), clip.truth(ratio)
            made = chosen(watched, sparse[name], ratio)
            scores = {way: score_video(boxes, truth, frames).f for way, boxes in made.items()}
            rows.setdefault(name, []).append(scores)
        empty += not truth
        say(f"highlights: {number + 1}/{clips}: {[each[-1] for each in rows.values()]}")
        if not drawn and (truth or number == clips - 1):  # one that has something
            drawn = True
            boxes_sheet(clip, sparse, out / "boxes.png")
    path.unlink()
    ways = {name: mean_of(each) for name, each in rows.items()}
    return {"clips": clips, "without a lively stretch": empty, **ways}
