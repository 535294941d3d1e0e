"""Heads on features of rendered videos with known answers: how fast people gesture, and what they wear."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.similarity import load_extractor
from finish.heads import Table, describe, fit
from lab.finish.pictures import HELD_OUT
from lab.finish.stage import Stage
from lab.presenter.render.identity import TOPS, random_identity
from pipeline.video.reader import VideoWriter

SIZE, FPS, SECONDS = (128, 192), 12, 4
EACH = 4  # videos of a person, in which nothing but the speed, the moment and the clothes is another
SPEEDS = 0.2, 2.0  # of gestures, beside the renderer's own
LUMA, LIGHT = (0.299, 0.587, 0.114), 0.5  # of a colour's parts; clothes are called dark below it
Say = Callable[[str], None]


def known_answers(people: int, say: Say) -> dict[str, dict]:
    """Figures of heads on videos, and on people, that they were not fitted to."""
    extractor, random, rows = load_extractor("stfn"), np.random.default_rng(0), []
    who, speed, luma, shade, kind = {}, {}, {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "v.mp4"), Path(folder, "head.npz")
        for number in range(people * EACH):
            name, stage = str(number), Stage(HELD_OUT + 5000 + number // EACH, SIZE, 1)
            dress(stage, HELD_OUT + 7000 + number)
            worn = stage.people[0].who
            who[name], kind[name] = number // EACH, worn.top
            luma[name] = float(np.dot(LUMA, worn.top_colour)) / 255
            shade[name] = "light" if luma[name] > LIGHT else "dark"
            low, high = np.log(SPEEDS)
            speed[name] = float(np.exp(random.uniform(low, high)))
            begin = random.uniform(0, 40)
            with VideoWriter(path, *SIZE, FPS) as writer:
                for k in range(FPS * SECONDS):
                    writer.write(stage.picture(np.array([begin + speed[name] * k / FPS]), lights=k / FPS))
            rows.append(describe(path, extractor))
            say(f"answers: {number + 1}/{people * EACH}")
        table = Table(list(speed), np.stack(rows), extractor.name)
        asked = (("speed of gestures", speed, "number"), ("how light clothes are", luma, "number"),
                 ("clothes, light or dark", shade, "class"),
                 (f"clothes, one of {len(TOPS)} kinds", kind, "class"))  # fmt: skip
        return {
            f"{target}, {left_out} left out": fit(table, labels, how, target, out, groups)
            for target, labels, how in asked
            for left_out, groups in (("videos", {}), ("people", who))
        }


def dress(stage: Stage, seed: int) -> None:
    """Give a stage's only person the clothes of another seed's."""
    other, (person,) = random_identity(seed), stage.people
    person.who = replace(person.who, top=other.top, top_colour=other.top_colour, accent=other.accent)
