"""Make the runs of a submission that its checks look at, each once, when the first check asks for it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.video_folders import Folders
from engines.errors import InputError
from pipeline.batch.dataset import OUTPUTS, find_requests
from pipeline.video.reader import VideoReader
from submit.archive import unpack, unpack_with_unzip
from submit.checks import NotEvaluated, Submission
from submit.isolation import Ended, isolation
from submit.pack import ENTRY
from submit.sandbox import (
    NAME,
    Environment,
    Sandbox,
    make_environment,
    read_only,
    remove,
    remove_what_is_no_file,
    snapshot,
)
from submit.trial_data import Unseen, copy_without_outputs, make_unseen

NO_ISOLATION = (
    "this system permits neither bubblewrap nor unshare to isolate the run, which would have your rights; "
    "install bubblewrap, permit user namespaces, or say --trust if the archive's maker is to be trusted"
)
NO_BASE = (
    "what it makes of data that nobody has seen was compared with nothing: give --generator, the model that "
    "made DATA/outputs"
)
LAST_LINES = 6
MAY_APPEAR = ("__pycache__", "engines/built/")  # in the unpacked folder: what makes the next start quicker
Made = TypeVar("Made")


@dataclass(frozen=True)
class Verdict:
    """A verdict on some videos: their least similarity, None if one has none, and why they do not pass."""

    similarity: float | None
    reasons: list[str]


@dataclass(frozen=True)
class Question:
    """A trial's task.

    data: a folder with outputs. judge: compares videos of two folders. base: makes a generator's base videos
    of a data folder in a folder, within seconds. generator: its name, or None for that of the archive if it
    comes with Vivace. threshold: seconds a video that are allowed. trust: run it also without isolation.
    """

    data: Path
    judge: Callable[[Folders], Verdict]
    base: Callable[[str, Path, Path, float], None]
    generator: str | None = None
    threshold: float | None = None
    trust: bool = False


@dataclass(frozen=True)
class Run:
    """A run that has ended. ids: the videos asked for; stray: what it wrote or left elsewhere than in out."""

    ended: Ended
    out: Path
    ids: list[str]
    stray: list[str]

    @property
    def status(self) -> int:
        """Return its exit status."""
        return self.ended.status

    @property
    def said(self) -> str:
        """Return its last lines on stderr."""
        return "\n".join(self.ended.said.splitlines()[-LAST_LINES:])

    @property
    def videos(self) -> dict[str, Path]:
        """Return the videos that it made of those asked for, by id."""
        paths = {name: self.out / f"{name}.mp4" for name in self.ids}
        return {name: path for name, path in paths.items() if path.is_file()}


def once(make: Callable[[Trial], Made]) -> property:
    """Make a property that is computed at its first use; the NotEvaluated that it may raise is kept too."""

    def get(trial: Trial) -> Made:
        found = trial.made
        if make not in found:
            try:
                found[make] = make(trial)
            except NotEvaluated as error:
                found[make] = error
        if isinstance(found[make], NotEvaluated):
            raise found[make]
        return found[make]

    return property(get, doc=make.__doc__)


class Trial:
    """A submission in a sandbox; a context manager that removes it. python: a finished environment to use."""

    def __init__(
        self,
        submission: Submission,
        question: Question,
        say: Callable[[str], None],
        python: Path | None = None,
    ) -> None:
        self.submission, self.question, self._say = submission, question, say
        self._python, self.made = python, {}
        self._stack = ExitStack()

    def __enter__(self) -> Trial:
        self.work = Path(tempfile.mkdtemp(prefix=f"{NAME} "))
        self._stack.callback(remove, self.work)
        self._venv = Path(tempfile.mkdtemp(prefix="vivace-venv-"))
        self._stack.callback(remove, self._venv)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @once
    def environment(self) -> Environment:
        """Make the virtual environment. NotEvaluated: there can be none here, or no isolation."""
        profile = self.submission.profile
        reason = profile.why_not_here()
        if reason is None and isolation() is None and not self.question.trust:
            reason = NO_ISOLATION
        if reason:
            raise NotEvaluated(reason)
        if self._python:
            return Environment(self._python)
        self._say(f"making an environment of Python {profile.python}")
        folder, image, pins = self.submission.folder, bool(profile.preinstalled), self.submission.pins
        place, left = self._venv / "environment", self.submission.seconds_left
        return make_environment(place, profile.interpreter(), folder, pins, left, profile.index, image)

    @property
    def sandbox(self) -> Sandbox:
        """Return where runs are made."""
        return Sandbox(self.environment, self.work, [self.question.data / OUTPUTS])

    @once
    def data(self) -> Path:
        """Copy the data folder's inputs, read-only."""
        folder = self.work / "数据"
        copy_without_outputs(self.question.data, folder)
        read_only(folder)
        return folder

    @property
    def elsewhere(self) -> Path:
        """Return a folder to start from that is not the submission's."""
        return self.work / "elsewhere"

    @once
    def by_zipfile(self) -> Path:
        """Unpack the archive with Python's zipfile."""
        return self._unpack("解压 0", unpack)[0]

    @once
    def by_unzip(self) -> tuple[Path, str]:
        """Unpack the archive as unzip does; the folder, and what unpacked it."""
        return self._unpack("解压 1", unpack_with_unzip)

    @once
    def first(self) -> Run:
        """Make all videos: unpacked by zipfile, started from another folder."""
        return self._run("first", self.data, self.by_zipfile, self.elsewhere)

    @once
    def second(self) -> Run:
        """Make all videos again: unpacked as unzip does, started from its own folder."""
        folder, _ = self.by_unzip
        return self._run("second", self.data, folder, folder)

    @once
    def again(self) -> Run:
        """Make all videos as the first run did, in the same folder, where what it built is."""
        self.first  # noqa: B018 (made before this one)
        return self._run("again", self.data, self.by_zipfile, self.elsewhere)

    @once
    def unseen(self) -> tuple[Unseen, Run]:
        """Make two videos that nobody has seen, unlike those of the data folder, among these."""
        made = self.first.videos.values()
        if not made:
            raise NotEvaluated("the first run made no video: see S10")
        with VideoReader(next(iter(made))) as video:
            size = (video.width, video.height)
        draws = random.SystemRandom()  # what is drawn from a seed of ours can be made beforehand
        unseen = make_unseen(self.question.data, self.work / "unseen", size, draws)
        return unseen, self._run("unseen", unseen.among, self.by_zipfile, self.elsewhere)

    @once
    def unseen_verdict(self) -> Verdict:
        """Compare those two with the base model's, made here. NotEvaluated: it is not at hand."""
        unseen, run = self.unseen
        manifest = self.submission.manifest
        bundled = manifest.entry["generator"] if manifest.generator is None else None
        name = self.question.generator or bundled
        if name is None:
            raise NotEvaluated(NO_BASE)
        self._say("running the base model on data that nobody has seen")
        base, made = self.work / "base", self.work / "made unseen"
        self.question.base(name, unseen.folder, base, self.submission.seconds_left())
        made.mkdir()
        for path in (path for name, path in run.videos.items() if name in unseen.skeletons):
            shutil.copyfile(path, made / path.name)
        return self.question.judge(Folders(base, made, unseen.skeletons))

    @once
    def without_images(self) -> Run:
        """Run with a data folder of videos and no image."""
        folder = self.work / "no images"
        copy_without_outputs(self.question.data, folder)
        shutil.rmtree(folder / "images")
        (folder / "images").mkdir()
        (folder / "pairs.csv").unlink(missing_ok=True)
        return self._run("without images", folder, self.by_zipfile, self.elsewhere)

    def _unpack(self, name: str, how: Callable[[Path, Path], str | None]) -> tuple[Path, str | None]:
        if not self.submission.is_safe:
            raise NotEvaluated("the archive is not safe to unpack: see S01 and S03")
        return self.work / name, how(self.submission.path, self.work / name)

    def _run(self, name: str, data: Path, unpacked: Path, start: Path) -> Run:
        sandbox, out = self.sandbox, self.work / f"输出 {name}"
        start.mkdir(exist_ok=True)
        watched = {"its folder": unpacked, "the data": data}
        watched |= {"HOME": sandbox.home, "TMPDIR": sandbox.temporary}
        if start != unpacked:
            watched["the working folder"] = start
        before = {where: snapshot(folder) for where, folder in watched.items()}
        ids = []
        with suppress(InputError):
            ids = [request.id for request in find_requests(data).requests]
        self._say(f"running {ENTRY}: {name}")
        arguments = [os.path.relpath(unpacked / ENTRY, start), "--data", str(data), "--out", str(out)]
        left = self.submission.seconds_left()
        ended = sandbox.run(arguments, start, [data], [unpacked, out], left)
        stray = [f"{each} in the output folder is no plain file" for each in remove_what_is_no_file(out)]
        stray += [f"the process {each!r} lived on" for each in ended.left]
        for where, folder in watched.items():
            was, now = before[where], snapshot(folder)
            changed = sorted(path for path in was | now if was.get(path) != now.get(path))
            if where == "its folder":
                changed = [each for each in changed if each in was or not _may_appear(each)]
            stray += [f"{path} in {where} was written or changed" for path in changed]
        return Run(ended, out, ids, stray)


def _may_appear(path: str) -> bool:
    return any(part in path for part in MAY_APPEAR)
