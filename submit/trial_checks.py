"""Check by running the submission, on a machine like the grader's: S10 to S15."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.errors import Exit
from pipeline.batch.run_folder import MANIFEST as RUN_MANIFEST
from pipeline.video.base_colours import OUTPUTS
from pipeline.video.reader import Form, read
from submit.checks import Note, NotEvaluated, check
from submit.pack import ENTRY
from submit.sandbox import TIMED_OUT, snapshot
from submit.trial import Run, Trial


@check(
    "S10", "clean run", "there it runs without your packages, your network, your folders",
    "a run that failed says why above; where videos differ: python -m bench --candidate", Exit.SIMILARITY,
)  # fmt: skip
def clean_run(trial: Trial) -> Iterator[str]:
    """Run in a new environment, without network, in another folder, on read-only data; ask the judge."""
    run = trial.first
    yield Note(f"no network by {trial.sandbox.blocked_by}; in {trial.work.name!r}")
    yield from _failed(run)
    reference = trial.question.data / OUTPUTS
    if not reference.is_dir():
        raise NotEvaluated(f"{reference} is missing, so there is no base demo to compare with")
    verdict = trial.question.judge(run.out)
    yield from verdict.reasons
    if verdict.similarity is not None:
        yield Note(f"similarity {verdict.similarity:.5f}, the least of {len(_videos(run))} videos")


@check("S11", "the same twice", "a verdict on one run says nothing of the next", "fix seeds and threads")
def repeatable(trial: Trial) -> Iterator[str]:
    """Check that two runs give equal frames."""
    one, other = _videos(trial.first), _videos(trial.second)
    if not one and not other:
        raise NotEvaluated("neither run made a video: see S10")
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            yield f"{name} was made by one of two runs only"
        elif not np.array_equal(read(one[name]).frames, read(other[name]).frames):
            yield f"{name} has other frames in the second run"


@check("S12", "unseen data", "hidden data has other lengths, sizes, rates, names", "expect nothing of data")
def unseen_data(trial: Trial) -> Iterator[str]:
    """Run on a longer video of odd size and rate, with a Chinese name and another image; then on no image."""
    unseen, run = trial.unseen
    yield from _failed(run)
    path = run.out / f"{unseen.name}.mp4"
    if path.is_file():
        found = Form.of(read(path))
        found = replace(found, fps=found.fps.limit_denominator(1001))
        if found != unseen.form:
            yield f"the unseen video became {found}, expected {unseen.form}"
    elif run.status == Exit.OK:
        yield f"{path.name} was not made"
    run = trial.without_images
    if run.status != Exit.INPUT:
        ends = f"without any image {ENTRY} ends with status {run.status}, expected"
        yield f"{ends} {Exit.INPUT.value}: {run.said}"
    if "Traceback" in run.said:
        yield "without any image it ends by a traceback, not by a message"


@check("S13", "time", "above the threshold speed counts nothing", "tune.py finds a faster recipe", Exit.TIME)
def time(trial: Trial) -> Iterator[str]:
    """Compare a cold start and all videos with the threshold; the environment and first builds with theirs.

    Of a submission that builds engines at its first run, the second one in that folder counts.
    """
    profile, threshold = trial.submission.profile, trial.question.threshold
    builds = trial.submission.manifest.entry.get("build")
    run = trial.again if builds else trial.first
    preparing = trial.environment.seconds + max(trial.first.ended.seconds - run.ended.seconds, 0.0)
    count = max(len(run.lines), 1)
    each = run.ended.seconds / count
    yield Note(f"{run.ended.seconds:.1f} s for {count} videos, start included: {each:.2f} s each")
    yield Note(f"the environment took {preparing:.0f} s")
    if threshold is not None and each > threshold:
        yield f"{each:.2f} s a video, allowed are {threshold:g}"
    if preparing > profile.environment_seconds:
        yield f"the environment took {preparing:.0f} s of {profile.environment_seconds:.0f}"


@check("S14", "nothing left behind", "the grader counts files; its disk is not yours", "write to --out only")
def tidy(trial: Trial) -> Iterator[str]:
    """Check that runs write only what they made, under final names, in the output folder."""
    for run in (trial.first, trial.second, trial.unseen[1], trial.without_images):
        yield from (f"{each} was written or changed, as {ENTRY} made {run.out.name}" for each in run.stray)
        wanted = {RUN_MANIFEST, *(f"{line.get('id')}.mp4" for line in run.lines)}
        names = {path.name for path in run.out.iterdir()} if run.out.is_dir() else set()
        yield from (f"{name} is left in the output folder" for name in sorted(names - wanted))


@check("S15", "both unpackers", "zipfile forgets modes, unzip keeps them", "start programs by interpreter")
def both_unpackers(trial: Trial) -> Iterator[str]:
    """Check that it runs as zipfile unpacks it and as unzip does, and that both give the same files."""
    folder, unpacker = trial.by_unzip
    yield Note(f"zipfile, and {unpacker}")
    for what, run in (("zipfile", trial.first), (unpacker, trial.second)):
        yield from (f"unpacked by {what}: {text}" for text in _failed(run))
    one, other = snapshot(trial.by_zipfile), snapshot(folder)
    differing = [name for name in trial.submission.files if one.get(name) != other.get(name)]
    if differing:
        yield f"the two unpack it differently: {', '.join(differing[:5])}"


def _failed(run: Run) -> Iterator[str]:
    if run.status == TIMED_OUT:
        yield f"{ENTRY} took longer than {run.ended.seconds:.0f} s and was stopped"
    elif run.status != Exit.OK:
        yield f"{ENTRY} ended with status {run.status}: {run.said}"


def _videos(run: Run) -> dict[str, Path]:
    """Return the videos that a run made, by id."""
    return {path.stem: path for path in sorted(run.out.glob("[!.]*.mp4"))}
