"""Find what a recipe does on the test bed without its guard, and what the guard says of each sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.judge import Judge
from bench.judging import RequestJudge
from bench.quality_goal import Goal, Judged
from engines.artifact import key
from generators.contract import Generator
from pipeline.batch.dataset import Request, find_requests
from pipeline.guard import Guard
from pipeline.guard_watch import ClipForm, GuardWatch
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Row:
    """A sample: what is unlike about it, why the recipe's run is below its level, why the guard fires.

    below: of the run without the guard; None: there is no base run to judge by. Empty: it passes.
    """

    id: str
    part: str
    kind: str
    below: list[str] | None
    fired: str | None
    similarity: float | None = None
    psnr: float | None = None


def folder_of(part: Path, recipe: Recipe) -> Path:
    """Return where runs of a recipe are kept; another plan has another folder, whatever its guard."""
    settings = {name: value for name, value in recipe.settings().items() if name != "guard"}
    return part / "runs" / f"{recipe.name}-{key(settings)}"


@dataclass(frozen=True)
class Bench:
    """A test bench that makes rows: the judge, and the generator whose guard is asked."""

    judge: Judge
    generator: Generator


def rows(bench: Bench, part: Path, recipe: Recipe, goal: Goal) -> Iterator[Row]:
    """Yield a row for each sample of a part that the recipe has been run on."""
    kinds, runs = json.loads((part / "kinds.json").read_text()), folder_of(part, recipe)
    for request in find_requests(part).requests:
        name = f"{request.id}.mp4"
        if not (runs / name).exists():
            continue
        with np.load(runs / f"{request.id}.npz") as run:
            fired = said(recipe.steps.guard, run, bench.generator)
        below, found = None, None
        if (part / "outputs" / name).exists():
            found = _judged(bench.judge, request, part, runs)
            below = goal.why_not([found])
        figures = (found.similarity, found.psnr) if found else ()
        yield Row(request.id, part.name, kinds[request.id], below, fired, *figures)


def said(guard: Guard | None, run: np.lib.npyio.NpzFile, generator: Generator) -> str | None:
    """Return why the guard would have fired in a recorded run, see runs.Runner."""
    if guard is None:
        return None
    axis, prefix = generator.frame_axis, "constant_"
    constants = {name.removeprefix(prefix): run[name] for name in run.files if name.startswith(prefix)}
    made = run["conditional"]
    changing = [array.shape[axis] for name, array in constants.items() if name in generator.per_frame]
    form = ClipForm(axis, generator.per_frame, *(changing[:1] or [1]), made[0].shape[axis])
    watch = GuardWatch(guard, form)
    watch.constants(constants)
    for number in range(1, len(made)):
        watch.prediction(number, made[number], made[number - 1])
    return watch.unlike and watch.unlike.why


def _judged(judge: Judge, request: Request, part: Path, runs: Path) -> Judged:
    """Read a verdict by the same judge from a file beside the run, or make it and write it there."""
    judge_request = RequestJudge(judge, {request.id: part / "outputs" / f"{request.id}.mp4"})
    saved = runs / f"{request.id}-{judge_request.identity}.json"
    if saved.exists():
        return Judged(**json.loads(saved.read_text()))
    found = judge_request(request, runs / f"{request.id}.mp4")
    saved.write_text(json.dumps(asdict(found)))
    return found


def table(found: list[Row]) -> Iterator[str]:
    """Return Markdown: by part and kind how many samples are below the level, and on how many the guard
    fires.
    """
    yield "| part | kind | samples | judged | below its level | of these unflagged | guard fires |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    groups = dict.fromkeys([(row.part, row.kind) for row in found])
    for part, kind in [*groups, *dict.fromkeys((part, "all") for part, _ in groups)]:
        own = [row for row in found if row.part == part and kind in (row.kind, "all")]
        judged = [row for row in own if row.below is not None]
        below = [row for row in judged if row.below]
        unflagged, fired = (sum(map(bool, each)) for each in
                            ([not row.fired for row in below], [row.fired for row in own]))  # fmt: skip
        yield f"| {part} | {kind} | {len(own)} | {len(judged)} | {len(below)} | {unflagged} | {fired} |"
    for row in found:
        if row.below and not row.fired:
            yield f"\nunflagged: {'; '.join(row.below)}"
        if row.fired and row.part == "like":
            yield f"\nfalse alarm: {row.id}: {row.fired}"
