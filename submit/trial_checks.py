"""Check by running the submission, on a machine like the grader's: S10 to S15."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bench.video_folders import Folders
from engines.errors import Exit
from pipeline.batch.dataset import OUTPUTS, find_requests
from pipeline.batch.run_folder import MANIFEST as RUN_MANIFEST
from pipeline.video.reader import Form, VideoReader
from submit.checks import Note, NotEvaluated, check
from submit.isolation import TIMED_OUT, isolation
from submit.pack import ENTRY
from submit.sandbox import content
from submit.trial import NO_ISOLATION, Run, Trial
from submit.trial_data import MIRRORED

# What unseen videos may add: so many times their share of the known ones' time, for windows that are not
# full; and, of the whole time and in seconds, what two equal runs differ by on a busy machine.
SLOWER, SPREAD, SLACK = 2.0, 0.1, 5.0


@check(
    "S10", "clean run", "there it runs without your packages, your network, your folders",
    "a run that failed says why above; where videos differ: python -m bench --candidate", Exit.SIMILARITY,
)  # fmt: skip
def clean_run(trial: Trial) -> Iterator[str]:
    """Run in a new environment, without network, in another folder, on read-only data; ask the judge."""
    run = trial.first
    how = isolation()
    yield Note(f"isolated by {how}: no network, and the system read-only" if how else NO_ISOLATION)
    yield from _failed(run)
    reference = trial.question.data / OUTPUTS
    if not reference.is_dir():
        raise NotEvaluated(f"{reference} is missing, so there is no base demo to compare with")
    skeletons = {request.id: request.video for request in find_requests(trial.question.data).requests}
    verdict = trial.question.judge(Folders(reference, run.out, skeletons))
    yield from verdict.reasons
    if verdict.similarity is not None:
        yield Note(f"similarity {verdict.similarity:.5f}, the least of {len(run.videos)} videos")
    if not verdict.reasons and run.status == Exit.OK:
        yield from _of_unseen(trial, MIRRORED)


@check("S11", "the same twice", "a verdict on one run says nothing of the next", "fix seeds and threads")
def repeatable(trial: Trial) -> Iterator[str]:
    """Check that two runs give equal frames."""
    one, other = trial.first.videos, trial.second.videos
    if not one and not other:
        raise NotEvaluated("neither run made a video: see S10")
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            yield f"{name} was made by one of two runs only"
        elif not _equal(one[name], other[name]):
            yield f"{name} has other frames in the second run"


@check("S12", "unseen data", "hidden data has other lengths, sizes, rates, names", "expect nothing of data")
def unseen_data(trial: Trial) -> Iterator[str]:
    """Run on a longer video of odd size and rate, with a Chinese name and another image; then on no image.

    What is shown is compared with what the base model makes of that video.
    """
    unseen, run = trial.unseen
    yield from _failed(run)
    path = run.videos.get(unseen.name)
    if path and (found := _form(path)) != unseen.form:
        # A generator may choose size and rate by video: then what the base makes says if that is right.
        yield Note(f"the unseen video became {found}; by its own rate, with the others' size: {unseen.form}")
    elif not path and run.status == Exit.OK:
        yield f"{unseen.name}.mp4 was not made"
    run = trial.without_images
    if run.status != Exit.INPUT:
        ends = f"without any image {ENTRY} ends with status {run.status}, expected"
        yield f"{ends} {Exit.INPUT.value}: {run.said}"
    if "Traceback" in run.said:
        yield "without any image it ends by a traceback, not by a message"
    yield from _of_unseen(trial, trial.unseen[0].name)


@check("S13", "time", "above the threshold speed counts nothing", "tune.py finds a faster recipe", Exit.TIME)
def time(trial: Trial) -> Iterator[str]:
    """Compare a cold start and all videos with the threshold; the environment and first builds with theirs.

    Of a submission that builds engines at its first run, the second one in that folder counts.
    """
    profile, threshold = trial.submission.profile, trial.question.threshold
    builds = trial.submission.manifest.entry.get("build")
    run = trial.again if builds else trial.first
    preparing = trial.environment.seconds + max(trial.first.ended.seconds - run.ended.seconds, 0.0)
    if not run.videos:
        yield "no video was made, so there is no time of one: see S10"
        return
    each = run.ended.seconds / len(run.videos)
    yield Note(f"{run.ended.seconds:.1f} s for {len(run.videos)} videos, start included: {each:.2f} s each")
    yield Note(f"the environment took {preparing:.0f} s")
    if threshold is not None and each > threshold:
        yield f"{each:.2f} s a video, allowed are {threshold:g}"
    if preparing > profile.environment_seconds:
        yield f"the environment took {preparing:.0f} s of {profile.environment_seconds:.0f}"
    yield from _as_fast_unseen(trial, run)


@check("S14", "nothing left behind", "the grader counts files; its disk is not yours", "write to --out only")
def tidy(trial: Trial) -> Iterator[str]:
    """Check that runs write only what they made, under final names, in the output folder."""
    runs = (lambda: trial.first, lambda: trial.second, lambda: trial.unseen[1], lambda: trial.without_images)
    for run in (make() for make in runs):
        yield from (f"{each}, as {ENTRY} made {run.out.name}" for each in run.stray)
        wanted = {RUN_MANIFEST, *(f"{name}.mp4" for name in run.ids)}
        names = {path.name for path in run.out.iterdir()} if run.out.is_dir() else set()
        yield from (f"{name} is left in the output folder" for name in sorted(names - wanted))


@check("S15", "both unpackers", "zipfile forgets modes, unzip keeps them", "start programs by interpreter")
def both_unpackers(trial: Trial) -> Iterator[str]:
    """Check that it runs as zipfile unpacks it and as unzip does, and that both give the same files."""
    folder, unpacker = trial.by_unzip
    yield Note(f"zipfile, and {unpacker}")
    for what, run in (("zipfile", trial.first), (unpacker, trial.second)):
        yield from (f"unpacked by {what}: {text}" for text in _failed(run))
    for name in trial.submission.files:
        size = (trial.submission.folder / name).stat().st_size
        if content(trial.by_zipfile / name, size) != content(folder / name, size):
            yield f"the two unpack {name} differently"


def _as_fast_unseen(trial: Trial, known: Run) -> Iterator[str]:
    """Yield why two videos that nobody has seen take longer than their share of what the known ones take.

    Answers that were computed beforehand are there for the known ones alone. What starting takes is in the
    share of an honest archive, not in what these two add.
    """
    unseen, run = trial.unseen
    if run.status != Exit.OK:
        yield f"two unseen videos more, and {ENTRY} ends with status {run.status}: see S12"
        return
    have, more = known.ended.seconds, run.ended.seconds - known.ended.seconds
    fair = have * (SLOWER * unseen.share + SPREAD) + SLACK
    added = f"two unseen videos add {more:.1f} s" if more > 0 else "two unseen videos add nothing measurable"
    yield Note(f"{added}; their share of {have:.1f} s is {have * unseen.share:.1f} s")
    if more > fair:
        yield f"{added}, at most {fair:.1f} s are their share: are answers to the known ones kept?"


def _of_unseen(trial: Trial, name: str) -> Iterator[str]:
    """Yield why a video of data that nobody has seen is not the base model's equal."""
    verdict = trial.unseen_verdict
    yield from (each for each in verdict.reasons if each.startswith(f"{name}: "))
    if verdict.similarity is not None:
        yield Note(f"similarity {verdict.similarity:.5f} to the base on data that nobody has seen")


def _failed(run: Run) -> Iterator[str]:
    if run.status == TIMED_OUT:
        yield f"{ENTRY} was stopped after {run.ended.seconds:.0f} s, as the time for this check was over"
    elif run.status != Exit.OK:
        yield f"{ENTRY} ended with status {run.status}: {run.said}"


def _equal(one: Path, other: Path) -> bool:
    """Return whether two videos have equal frames, and as many; one is held at a time."""
    with VideoReader(one) as left, VideoReader(other) as right:
        pairs = zip_longest(left, right)
        return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)


def _form(path: Path) -> Form:
    with VideoReader(path) as video:
        size, fps = (video.width, video.height), video.fps.limit_denominator(1001)
        return Form(sum(1 for _ in video), fps, size)
