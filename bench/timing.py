"""Time recipes side by side as the contest does: whole runs of infer.py in interleaved rounds.

Beside speed: a noise floor from the baseline timed against itself, whether runs repeat their frames, and
whether a repeated request is suspiciously fast.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.interleave import interleave, median_ratio
from bench.timed_run import (
    Job,
    Outcome,
    RunFailed,
    Start,
    check_replaceable,
    keep,
    run_script,
    staging,
    start_process,
    watching_gpu,
)
from engines.errors import Exit, OutputError
from pipeline.batch.data_folder import list_requests
from pipeline.batch.dataset import find_requests, first_requests
from pipeline.batch.run_folder import check_writable
from pipeline.recipe import BASELINE, Recipe, RecipeError

__all__ = ["Job", "RunFailed", "time_recipes"]

STAGES = ("read", "condition", "denoise", "decode", "write")
TWIN = "the baseline again"  # a folder's name while runs are made
LEAST_REPEAT = 0.9  # of the first time's seconds, for a request made again: MLPerf's TEST04
LEAST_SAVED = 0.25  # seconds that a kept result saves at least: short requests differ by less from run to run
BUSY = 0.5  # load a core; torch, whose threads spin while they wait, took ten times as long at 2 a core
TRIES = 5  # of the repeat check: a kept result is fast each time, other programs' work only now and then


@dataclass
class _Series:
    """The measurements of one recipe: the warm-up run, those of the rounds, repeats."""

    recipe: Recipe
    folder: Path
    warm_up: Outcome | None = None
    gpu_memory: int | None = None
    rounds: list[Outcome] = field(default_factory=list)
    repeat_ratio: float | None = None
    repeat_saved: float | None = None
    frames: list[dict[str, str]] = field(default_factory=list)  # hashes by id, of every run

    @property
    def seconds(self) -> list[float]:
        """Return the wall seconds of the script in each round."""
        return [outcome.seconds for outcome in self.rounds]

    def add(self, outcome: Outcome) -> Outcome:
        """Note the hashes of a run's frames, and return the run."""
        self.frames.append({name: line["frames_sha256"] for name, line in outcome.made.items()})
        return outcome


def time_recipes(
    recipes: Sequence[Recipe], job: Job, say: Callable[[str], None], start: Start = start_process
) -> list[dict]:
    """A run of each recipe, in their order, as report.json has it; the baseline first if none is it.

    After a warm-up of each, a round runs all once and the baseline twice; every round begins with another.
    The last round's videos are kept in OUT/<recipe>, and appear there when all is done or not at all.
    speed_ratio: median over rounds of the baseline's script seconds by the recipe's own; None where
    speed_unknown says why. RecipeError: two of one name. InputError: no data, no pairs. OutputError: OUT
    cannot be written. RunFailed: a recipe makes no video.
    """
    recipes = _with_baseline(recipes)
    first_requests(job.data)
    check_writable(job.out)
    if os.getloadavg()[0] > BUSY * os.cpu_count():
        load = f"the load is {os.getloadavg()[0]:.1f}: other programs are running"
        say(f"{load}; times and ratios will be off, and some backends suffer more than others")
    for recipe in recipes:
        check_replaceable(job.out / recipe.name)
    try:
        with staging(job.out) as folder:
            series, twin = _measure(recipes, job, folder, say, start)
            runs = _describe(series, twin, job)
            for each in series:
                keep(each.folder, each.rounds[-1].lines, job.out / each.recipe.name)
            return runs
    except OSError as error:
        raise OutputError(f"{job.out}: timing stopped ({error}). Check free space, run it again.") from error


def noise_floor(base: Sequence[float], twin: Sequence[float]) -> float:
    """Return the relative difference up to which two recipes may well be equally fast.

    It comes from the script seconds of the same recipe run twice a round: how far the median ratio lies from
    1, or how far single rounds' ratios lie from it (median absolute deviation, scaled to a standard
    deviation's size), whichever is more. One round has no spread, so its figure is a first hint only.
    """
    ratios = [b / t for b, t in zip(base, twin, strict=True)]
    median = statistics.median(ratios)
    spread = statistics.median(abs(ratio - median) for ratio in ratios)
    return max(abs(median - 1), 1.4826 * spread)


def stages(lines: Sequence[dict]) -> dict[str, float]:
    """Return mean seconds a video of each stage, from manifest lines; the rest of the total is "other"."""
    means = {stage: statistics.fmean(line["seconds"].get(stage, 0.0) for line in lines) for stage in STAGES}
    total = statistics.fmean(line["total_seconds"] for line in lines)
    rounded = {stage: round(seconds, 4) for stage, seconds in means.items()}
    return {**rounded, "other": round(total - sum(means.values()), 4)}


def figures(rounds: Sequence[Outcome]) -> dict:
    """Return the timing of a recipe from its rounds, over the videos that every round has made.

    contest_seconds: the script's seconds divided by videos. cold_start: the script's seconds that no video
    took: imports and engine loading, with files in the system's cache. peak_memory_mb: of the Python process.
    """
    names = [name for name in rounds[0].made if all(name in outcome.made for outcome in rounds)]
    if not names:
        raise RunFailed("no video was made in every round; infer.py makes others each time", Exit.SOME_FAILED)
    by_video = {name: [outcome.made[name] for outcome in rounds] for name in names}
    lines = [line for each in by_video.values() for line in each]
    seconds = [line["total_seconds"] for line in lines]
    cold = [o.seconds - sum(line["total_seconds"] for line in o.made.values()) for o in rounds]
    return {
        "script_seconds": [round(outcome.seconds, 4) for outcome in rounds],
        "contest_seconds": round(statistics.median(o.seconds / len(o.made) for o in rounds), 4),
        "seconds_per_video": {f"p{p}": round(float(np.percentile(seconds, p)), 4) for p in (50, 90)},
        "cold_start": round(statistics.median(cold), 4),
        "stages": stages(lines),
        "peak_memory_mb": max(line["peak_memory_mb"] for line in lines),
        "videos": {
            name: {"seconds": [line["total_seconds"] for line in each], "stages": stages(each)}
            for name, each in by_video.items()
        },
    }


def build_seconds(line: Mapping) -> float | None:
    """Return how long building the engines of a manifest line's run took; None without any, or if unknown."""
    seconds = [each["seconds"] for each in line.get("built", {}).values()]
    return round(sum(seconds), 1) if seconds and None not in seconds else None


def differing(frames: Sequence[dict[str, str]]) -> list[str]:
    """Return ids of videos whose frames were not the same in all runs that were to make them."""
    names = sorted({name for run in frames for name in run})
    return [name for name in names if len({run[name] for run in frames if name in run}) > 1]


def other_work(base: Sequence[Outcome], own: Sequence[Outcome]) -> str | None:
    """Say why seconds of two recipes' rounds are no ratio: videos failed, not in both alike. None: they are.

    A video that fails saves its time, so that failing would look fast. What no recipe can make, as where the
    input is damaged, fails in every round for the same reason.
    """
    rounds = [*base, *own]
    names = sorted({name for outcome in rounds for name in outcome.failed})
    unlike = [name for name in names if len({outcome.failed.get(name) for outcome in rounds}) > 1]
    if not unlike:
        return None
    return f"its speed is no ratio: {', '.join(unlike)} failed in some runs, which took no time there"


def _with_baseline(recipes: Sequence[Recipe]) -> list[Recipe]:
    recipes = list(recipes)
    if not any(recipe.is_baseline for recipe in recipes):
        recipes.insert(0, BASELINE)
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1 or name == TWIN:
            raise RecipeError(f"two recipes are named {name!r}; rename one of the files")
    return recipes


def _measure(
    recipes: Sequence[Recipe], job: Job, folder: Path, say: Callable[[str], None], start: Start
) -> tuple[list[_Series], _Series]:
    """Make all runs; return the series of each recipe, and of the baseline's twin."""
    series = [_Series(recipe, folder / "runs" / recipe.name) for recipe in recipes]
    base = next(each for each in series if each.recipe.is_baseline)
    twin = _Series(base.recipe, folder / "runs" / TWIN, frames=base.frames)
    for each in series:
        with watching_gpu(job.device) as samples:
            each.warm_up = each.add(run_script(each.recipe, job, job.data, each.folder, start))
        each.gpu_memory = max(samples) - samples[0] if samples else None
        say(f"warm-up: {each.recipe.name}: {each.warm_up.seconds:.1f} s")
    timed = {each.folder.name: each for each in [*series, twin]}
    runs = {
        name: partial(run_script, each.recipe, job, job.data, each.folder, start)
        for name, each in timed.items()
    }
    for name, number, outcome in interleave(runs, job.rounds):
        timed[name].rounds.append(timed[name].add(outcome))
        say(f"round {number} of {job.rounds}: {name}: {outcome.seconds:.1f} s")
    for each in series:
        _check_repeat(each, job, folder / "repeat", start)
        say(f"repeated request: {each.recipe.name}: {each.repeat_ratio:.2f} of the first one's seconds")
    return series, twin


def _check_repeat(series: _Series, job: Job, folder: Path, start: Start) -> None:
    """Make another request, then one, then that one again under another id; compare its times and frames.

    The other's pictures are as large and it has about as many frames: what starts for a size has started
    then. If none is as large, the one is the other too, with another seed: no result of it fits. A time far
    below the first's is believed when it is so in all of TRIES; the highest ratio is kept.
    """
    made = series.warm_up.made
    one, *more = [request for request in find_requests(job.data).requests if request.id in made]
    as_large = [each for each in more if made[each.id].get("size") == made[one.id].get("size")]
    frames = {name: line["frames"] for name, line in made.items()}
    other = min(as_large or [one], key=lambda request: abs(frames[request.id] - frames[one.id]))
    warm_up = replace(other, id="other", seed=other.seed + (other == one))
    list_requests([warm_up, replace(one, id="first"), replace(one, id="again")], folder / "data")
    ratios, saved = [], []
    while not ratios or (result_kept(max(ratios), min(saved)) and len(ratios) < TRIES):
        outcome = run_script(series.recipe, job, folder / "data", folder / "out", start)
        if outcome.failed:
            raise RunFailed(f"{series.recipe.name}: a request made again failed: {outcome.failed}", Exit.BUG)
        first, again = outcome.made["first"], outcome.made["again"]
        ratios.append(again["total_seconds"] / first["total_seconds"])
        saved.append(first["total_seconds"] - again["total_seconds"])
        series.frames += [{one.id: line["frames_sha256"]} for line in (first, again)]
    series.repeat_ratio, series.repeat_saved = round(max(ratios), 4), round(min(saved), 4)


def result_kept(ratio: float, saved: float) -> bool:
    """Tell whether a result was kept from one request for the next, by what the second took of the first."""
    return ratio < LEAST_REPEAT and saved >= LEAST_SAVED


def _describe(series: Sequence[_Series], twin: _Series, job: Job) -> list[dict]:
    base = next(each for each in series if each.recipe is twin.recipe)
    floor = None if other_work(base.rounds, twin.rounds) else noise_floor(base.seconds, twin.seconds)
    runs = []
    for each in series:
        timing, line = figures(each.rounds), next(iter(each.rounds[-1].made.values()))
        timing |= {
            "gpu_memory_mb": each.gpu_memory,
            "repeat_ratio": each.repeat_ratio,
            "repeat_saved": each.repeat_saved,
        }
        timing["build_seconds"] = build_seconds(line)
        unlike = other_work(base.rounds, each.rounds)
        ratio = None if unlike else round(median_ratio(base.seconds, each.seconds), 4)
        runs.append({
            "name": each.recipe.name,
            "folder": str(job.out / each.recipe.name),
            "recipe": asdict(each.recipe),
            "backend": line["backend"],
            "built": line.get("built", {}),
            "speed_ratio": ratio,
            "speed_unknown": unlike,
            "noise_floor": floor if floor is None else round(floor, 4),
            "nondeterministic": differing(each.frames),
            "guard_fired": {name: made["guard_fired"] for name, made in each.rounds[-1].made.items()
                            if made.get("guard_fired")},
            "notes": {name: made["notes"] for name, made in each.rounds[-1].made.items()
                      if each.recipe is twin.recipe and made.get("notes")},
            "failed": {name: why for outcome in each.rounds for name, why in outcome.failed.items()},
            "timing": timing,
        })  # fmt: skip
    return runs
