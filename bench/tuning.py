"""The tuner on a data folder: its videos are made by real runs, and judged as the bench judges all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.judge import Judge, videos_in
from bench.similarity import load_extractor
from bench.trials import draw_trials
from engines.artifact import key
from engines.whole import whole
from generators.contract import load_generator
from optimize.goal import Goal, Judged
from optimize.recipe import BASELINE, Recipe
from optimize.tuner import Tuned, Tuner
from pipeline.base_colours import as_base_videos
from pipeline.data import Request, find_requests
from pipeline.errors import InputError
from pipeline.run_folder import check_writable
from pipeline.tuning import Workbench

SAME = 100.0  # dB, for videos that do not differ


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
    with closing(workbench_of(job, folder)) as workbench:
        tuned = Tuner(workbench, goal, record_of(workbench, goal, folder), say).tune(recipes, job.overlaps)
    note = (
        f"Tuned for {workbench.generator.name} on {len(workbench.cases)} videos, "
        f"to similarity {goal.similarity:g} and PSNR {goal.psnr:g} dB, from {tuned.best.recipe.name}."
    )
    for doubt in tuned.best.recipe.steps.guard.doubts if tuned.best.recipe.steps.guard else ():
        say(f"{out}: note: {doubt}")
    with whole(out) as draft:
        draft.write_text(replace(tuned.best.recipe, note=note).to_toml(), encoding="utf-8")
    draw_trials(tuned, goal, folder / "trials.png")
    return tuned


def workbench_of(job: TuningJob, folder: Path) -> Workbench:
    """What runs and judges recipes for a job; the folder is its own. Raises what tune_folder does."""
    requests = find_requests(job.data).requests
    references = find_references(job.data, requests)
    judge = judging(Judge([load_extractor(name) for name in job.extractors]), references)
    check_writable(folder)
    coded = as_base_videos(BASELINE, job.data, lambda text: None).coded
    return Workbench(requests, load_generator(job.generator), job.device, folder, judge, job.lossless, coded)


def record_of(workbench: Workbench, goal: Goal, folder: Path) -> Path:
    """Where a workbench's trials are kept; of one goal, as the first video that fails it ends a trial."""
    return folder / f"trials-{key({'runs': workbench.identity, 'goal': asdict(goal)})}.jsonl"


def find_references(data: Path, requests: Sequence[Request]) -> dict[str, Path]:
    """The base model's videos by id; InputError says how to make those that are missing."""
    references = videos_in(data / "outputs")
    missing = [request.id for request in requests if request.id not in references]
    if missing:
        raise InputError(
            f"{data / 'outputs'} lacks the base model's videos of {', '.join(missing)}; make them: "
            f"python infer.py --data {data} --out {data / 'outputs'}"
        )
    return references


def judging(judge: Judge, references: Mapping[str, Path]) -> Callable[[Request, Path], Judged]:
    """A function that holds a request's video against its reference, with the checks that failed."""

    def judged(request: Request, made: Path) -> Judged:
        found = judge.compare_files(references[request.id], made, request.video)
        cosines = [each["value"] for each in found["cosine"].values()]
        failed = tuple(
            f"{check['name']} {check['value']}, needs {check['limit']}"
            for check in found["checks"]
            if not check["passes"] and not check["name"].startswith("similarity (")
        )
        psnr = found["metrics"].get("psnr", 0.0)
        valid = all(cosine is not None and cosine <= 1 for cosine in cosines)
        return Judged(request.id, min(cosines) if valid else None, SAME if psnr is None else psnr, failed)

    return judged
