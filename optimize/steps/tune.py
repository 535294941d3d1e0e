"""Run the tuner on a data folder: real runs make its videos, and the bench's judge compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.judge import Judge
from bench.judging import RequestJudge, find_references
from bench.quality_goal import Goal
from bench.similarity import load_extractors
from engines.artifact import key
from engines.files import atomic_write
from generators.contract import load_generator
from generators.windows import WindowRule, overlapping
from optimize.steps.plot import draw_trials
from optimize.steps.tuner import Tuned, Tuner
from optimize.steps.tuning_runner import TuningRunner
from pipeline.batch.dataset import Request, first_requests
from pipeline.batch.run_folder import check_replaced, check_writable, locked_folder
from pipeline.recipe import BASELINE, Recipe
from pipeline.video.base_colours import as_base_videos


@dataclass(frozen=True)
class TuningJob:
    """A tuning job: a generator on a device, with the requests of a data folder and the base model's videos.

    overlaps: of windows, to be tried at the end if they are smaller than the generator's own, and its rule
    takes them. lossless: for base videos that are lossless: above about 40 dB, PSNR would otherwise mostly
    measure how they were encoded.
    """

    data: Path
    generator: str = "presenter"
    device: str = "cpu"
    extractors: Sequence[str] = ("stfn",)
    overlaps: Sequence[int] = (0, 2)
    lossless: bool = False


def tune_folder(
    job: TuningJob, goal: Goal, recipes: Sequence[Recipe], out: Path, say: Callable[[str], None]
) -> Tuned:
    """Tune on a data folder, write the fastest recipe to the TOML file `out`, and return the result.

    Trials and a plot of them are kept in a folder beside out, so the same call resumes an interrupted one.
    InputError: no pairs, or a base video is missing. FolderError: out cannot be written, or another search
    is at work there. TuningError: no recipe keeps to the goal. Errors of loading extractors, generator and
    engines.
    """
    folder = out.with_suffix(".tuning")
    check_replaced(out)
    with closing(tuning_runner_of(job, folder, say)) as runner, locked_folder(folder):
        overlaps = smaller_overlaps(runner.generator.windows, job.overlaps)
        tuned = Tuner(runner, goal, record_of(runner, goal, folder), say).tune(recipes, overlaps)
    note = (
        f"Tuned for {runner.generator.name} on {len(runner.clips)} videos, "
        f"to similarity {goal.similarity:g} and PSNR {goal.psnr:g} dB, from {tuned.best.recipe.name}."
    )
    for doubt in tuned.best.recipe.steps.guard.doubts if tuned.best.recipe.steps.guard else ():
        say(f"{out}: note: {doubt}")
    with atomic_write(out) as draft:
        draft.write_text(replace(tuned.best.recipe, note=note).to_toml(), encoding="utf-8")
    draw_trials(tuned, goal, folder / "trials.png")
    return tuned


def smaller_overlaps(windows: WindowRule, overlaps: Sequence[int]) -> list[int]:
    """Return those of the overlaps that are smaller than the rule's own, and that it takes."""
    own = getattr(windows, "overlap", 0)  # a rule of the user's may have none
    return [overlap for overlap in overlaps if overlap < own and _takes(windows, overlap)]


def _takes(windows: WindowRule, overlap: int) -> bool:
    try:
        overlapping(windows, overlap)
    except ValueError:
        return False
    return True


def tuning_runner_of(job: TuningJob, folder: Path, say: Callable[[str], None] | None = None) -> TuningRunner:
    """Return what runs and judges recipes for a job. folder: for its files alone. Errors: see tune_folder."""
    requests = first_requests(job.data, say=say)
    judge = judge_of(job, requests)
    check_writable(folder)
    coded = as_base_videos(BASELINE, job.data, lambda text: None).coded
    return TuningRunner(
        requests, load_generator(job.generator), job.device, folder, judge, job.lossless, coded
    )


def judge_of(job: TuningJob, requests: Sequence[Request]) -> RequestJudge:
    """Open the job's judge on the base model's videos. InputError: one is missing. ExtractorError."""
    references = find_references(job.data, requests, job.generator)
    return RequestJudge(Judge(load_extractors(job.extractors)), references)


def record_of(runner: TuningRunner, goal: Goal, folder: Path) -> Path:
    """Return the path of a runner's record of trials for one goal, whose first failing video ends a trial."""
    trials = {"runs": runner.identity, "judge": runner.judge.identity, "goal": asdict(goal)}
    return folder / f"trials-{key(trials)}.jsonl"
