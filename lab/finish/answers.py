"""Heads on features of rendered videos with known answers: how fast people gesture, and their clothes."""

from __future__ import annotations

import colorsys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.similarity import load_extractor
from finish.heads import Table, describe, fit
from lab.finish.pictures import HELD_OUT
from lab.finish.stage import Stage
from pipeline.video.reader import VideoWriter

SIZE, FPS, SECONDS = (128, 192), 12, 3
SPEEDS = 0.2, 2.0  # of gestures, beside the renderer's own
Say = Callable[[str], None]


def known_answers(videos: int, say: Say) -> dict[str, dict]:
    """Figures of two heads on videos that they were not fitted to."""
    extractor, random, rows, speeds, clothes = load_extractor("stfn"), np.random.default_rng(0), [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(videos):
            stage, speed, path = (
                Stage(HELD_OUT + 5000 + n, SIZE, 1),
                random.uniform(*SPEEDS),
                Path(folder, "v.mp4"),
            )
            with VideoWriter(path, *SIZE, FPS) as writer:
                for k in range(FPS * SECONDS):
                    writer.write(stage.picture(np.array([5 + speed * k / FPS])))
            rows.append(describe(path, extractor))
            speeds[str(n)], clothes[str(n)] = speed, _shade(stage.people[0].who.top_colour)
            say(f"answers: {n + 1}/{videos}")
        table, out = Table(list(speeds), np.stack(rows), extractor.name), Path(folder, "head.npz")
        return {
            "speed of gestures": fit(table, speeds, "number", "speed", out),
            "clothes, light or dark": fit(table, clothes, "class", "clothes", out),
        }


def _shade(colour: tuple) -> str:
    return "light" if colorsys.rgb_to_hsv(*(part / 255 for part in colour))[2] > 0.6 else "dark"
