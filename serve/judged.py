"""Judge a video against the base model's, in a worker."""

from __future__ import annotations

from functools import cache

from bench.judge import Judge, similarity
from bench.score import GATE, level_of
from bench.similarity import load_extractor
from engines.errors import EngineError, InputError, OutputError
from serve.comparisons import Comparison
from serve.settings import ServeSettings
from serve.store import Store
from serve.uploads import without_paths

EXTRACTOR = "stfn"


def compare(asked: Comparison, store: Store, settings: ServeSettings) -> None:
    """Judge a comparison's videos and end it."""
    base, made = (settings.videos / name / f"{name}.mp4" for name in (asked.base, asked.video))
    folder = settings.videos / asked.video
    try:
        found = the_judge().compare_files(base, made, folder / "video")
    except (InputError, OutputError, EngineError, MemoryError) as error:
        store.comparisons.end(asked, "failed", error=without_paths(str(error), folder))
        return
    line = {**found, "id": asked.video, "status": "judged"}
    verdict = {"passes": found["passes"], "similarity": similarity([line])}
    level = level_of({"name": asked.video, "verdict": verdict, "videos": [line]})
    sides = {"gate": GATE[0], "reference": asked.base, "candidate": asked.video}
    store.comparisons.end(asked, "completed", {**found, **verdict, "level": level, **sides})


@cache
def the_judge() -> Judge:
    """Return the judge of this process. EngineError: it cannot be had."""
    return Judge([load_extractor(EXTRACTOR)])
