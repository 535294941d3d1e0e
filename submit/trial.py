"""Make the runs of a submission that its checks look at, each once, when the first check asks for it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.timed_run import Ended
from pipeline.batch.run_folder import MANIFEST as RUN_MANIFEST
from submit.archive import unpack, unpack_with_unzip
from submit.checks import NotEvaluated, Submission
from submit.pack import ENTRY
from submit.sandbox import NAME, Environment, Sandbox, make_environment, read_only, snapshot, writable
from submit.trial_data import Unseen, copy_without_outputs, make_unseen

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

    data: a folder with outputs. judge: compares the videos of a folder with those. threshold: seconds a video
    that are allowed; limit: the most seconds that any run may take.
    """

    data: Path
    judge: Callable[[Path], Verdict]
    threshold: float | None = None
    limit: float = 3600.0


@dataclass(frozen=True)
class Run:
    """A run that has ended. said: its last lines on stderr; stray: files it wrote outside of out."""

    ended: Ended
    out: Path
    said: str
    stray: list[str]

    @property
    def status(self) -> int:
        """Return its exit status."""
        return self.ended.status

    @property
    def lines(self) -> list[dict]:
        """Return the lines of its manifest, if all are JSON up to the last."""
        found = []
        with suppress(OSError, ValueError):
            text = (self.out / RUN_MANIFEST).read_text(encoding="utf-8")
            found += [json.loads(line) for line in text.splitlines()]
        return found


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
        self.work = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{NAME} ")))
        self._venv = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vivace-venv-")))
        self._stack.callback(lambda: writable(self.work))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @once
    def environment(self) -> Environment:
        """Make the virtual environment. NotEvaluated: there can be none for this target here."""
        profile = self.submission.profile
        reason = profile.why_not_here()
        if reason:
            raise NotEvaluated(reason)
        if self._python:
            return Environment(self._python, 0.0)
        self._say(f"making an environment of Python {profile.python}")
        folder, image = self.submission.folder, bool(profile.preinstalled)
        return make_environment(self._venv / "environment", profile.interpreter(), folder, image)

    @property
    def sandbox(self) -> Sandbox:
        """Return where runs are made."""
        return Sandbox(self.environment, self.work, self.question.limit)

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
        """Make a video unlike those of the data folder."""
        sizes = [tuple(line["size"]) for line in self.first.lines if line.get("size")]
        if not sizes:
            raise NotEvaluated("the first run made no video: see S10")
        unseen = make_unseen(self.question.data, self.work / "unseen", sizes[0])
        return unseen, self._run("unseen", unseen.folder, self.by_zipfile, self.elsewhere)

    @once
    def without_images(self) -> Run:
        """Run with a data folder of videos and no image."""
        folder = self.work / "no images"
        copy_without_outputs(self.question.data, folder)
        for path in (folder / "images").iterdir():
            path.unlink()
        (folder / "pairs.csv").unlink(missing_ok=True)
        return self._run("without images", folder, self.by_zipfile, self.elsewhere)

    def _unpack(self, name: str, how: Callable[[Path, Path], str | None]) -> tuple[Path, str | None]:
        if not self.submission.is_safe:
            raise NotEvaluated("the archive is not safe to unpack: see S01 and S03")
        return self.work / name, how(self.submission.path, self.work / name)

    def _run(self, name: str, data: Path, unpacked: Path, start: Path) -> Run:
        sandbox, out, log = self.sandbox, self.work / f"输出 {name}", self.work / f"{name}.log"
        start.mkdir(exist_ok=True)
        watched = {"its folder": unpacked, "the data": data}
        watched |= {"HOME": sandbox.home, "TMPDIR": sandbox.temporary}
        if start != unpacked:
            watched["the working folder"] = start
        before = {where: snapshot(folder) for where, folder in watched.items()}
        self._say(f"running {ENTRY}: {name}")
        script = os.path.relpath(unpacked / ENTRY, start)
        ended = sandbox.run([script, "--data", str(data), "--out", str(out)], start, log)
        stray = []
        for where, folder in watched.items():
            was, now = before[where], snapshot(folder)
            changed = sorted(path for path in was | now if was.get(path) != now.get(path))
            if where == "its folder":
                changed = [each for each in changed if each in was or not _may_appear(each)]
            stray += [f"{path} in {where}" for path in changed]
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return Run(ended, out, "\n".join(said), stray)


def _may_appear(path: str) -> bool:
    return any(part in path for part in MAY_APPEAR)
