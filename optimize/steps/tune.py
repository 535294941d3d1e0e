"""The tuner on a data folder: its videos are made by real runs, and judged as the bench judges all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.judge import Judge
from bench.judging import find_references, judging
from bench.quality_goal import Goal
from bench.similarity import load_extractor
from engines.artifact import key
from engines.files import atomic_write
from generators.contract import load_generator
from optimize.steps.plot import draw_trials
from optimize.steps.tuner import Tuned, Tuner
from optimize.steps.workbench import TuningRunner
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import check_writable
from pipeline.recipe import BASELINE, Recipe
from pipeline.video.base_colours import as_base_videos


@dataclass(frozen=True)
class TuningJob:
    """What is tuned: the generator on a device, on the requests of data and the base model's videos there.

    overlaps: of windows, smaller than the generator's own, that are tried at the end. lossless: for base
    videos that are: above some 40 dB, PSNR would mostly tell how each was encoded.
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
    """Write the fastest recipe to out, a TOML file; trials and a picture of them lie in a folder beside it.

    The same call finds that again and goes on. InputError: no pairs, or a base video is missing. TuningError:
    nothing keeps to the goal. Whatever else loading extractors, generator and engines raises.
    """
    folder = out.with_suffix(".tuning")
    with closing(tuning_runner_of(job, folder)) as workbench:
        tuned = Tuner(workbench, goal, record_of(workbench, goal, folder), say).tune(recipes, job.overlaps)
    note = (
        f"Tuned for {workbench.generator.name} on {len(workbench.cases)} videos, "
        f"to similarity {goal.similarity:g} and PSNR {goal.psnr:g} dB, from {tuned.best.recipe.name}."
    )
    for doubt in tuned.best.recipe.steps.guard.doubts if tuned.best.recipe.steps.guard else ():
        say(f"{out}: note: {doubt}")
    with atomic_write(out) as draft:
        draft.write_text(replace(tuned.best.recipe, note=note).to_toml(), encoding="utf-8")
    draw_trials(tuned, goal, folder / "trials.png")
    return tuned


def tuning_runner_of(job: TuningJob, folder: Path) -> TuningRunner:
    """What runs and judges recipes for a job; the folder is its own. Raises what tune_folder does."""
    requests = find_requests(job.data).requests
    references = find_references(job.data, requests)
    judge = judging(Judge([load_extractor(name) for name in job.extractors]), references)
    check_writable(folder)
    coded = as_base_videos(BASELINE, job.data, lambda text: None).coded
    return TuningRunner(
        requests, load_generator(job.generator), job.device, folder, judge, job.lossless, coded
    )


def record_of(workbench: TuningRunner, goal: Goal, folder: Path) -> Path:
    """Where a workbench's trials are kept; of one goal, as the first video that fails it ends a trial."""
    return folder / f"trials-{key({'runs': workbench.identity, 'goal': asdict(goal)})}.jsonl"
