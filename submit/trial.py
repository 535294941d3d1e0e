"""The runs of a submission that its checks look at: each is made once, when the first check asks for it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.batch.run_folder import MANIFEST as RUN_MANIFEST
from submit.archive import unpack, unpack_with_unzip
from submit.checks import NotEvaluated, Submission
from submit.pack import ENTRY
from submit.sandbox import (
    NAME,
    Ended,
    Environment,
    Sandbox,
    Start,
    make_environment,
    read_only,
    snapshot,
    writable,
)
from submit.trial_data import Unseen, copy_without_outputs, make_unseen

LAST_LINES = 6
MAY_APPEAR = ("__pycache__", "engines/built/")  # in the unpacked folder: what makes the next start quicker
Made = TypeVar("Made")


@dataclass(frozen=True)
class Verdict:
    """The least similarity of some videos, None if one has none, and why they do not pass."""

    similarity: float | None
    reasons: list[str]


@dataclass(frozen=True)
class Question:
    """What a trial is made with.

    data: a folder with outputs. judge: holds the videos of a folder against those; start: runs a command, its
    stderr in a log. Both are bench's, handed in because rooms of one floor do not import each other.
    threshold: seconds a video that are allowed; limit: the most seconds that any run may take.
    """

    data: Path
    judge: Callable[[Path], Verdict]
    start: Start
    threshold: float | None = None
    limit: float = 3600.0


@dataclass(frozen=True)
class Run:
    """A run that has ended. said: its last lines on stderr; stray: what it wrote outside of out."""

    ended: Ended
    out: Path
    said: str
    stray: list[str]

    @property
    def status(self) -> int:
        """Its exit status."""
        return self.ended.status

    @property
    def lines(self) -> list[dict]:
        """Of its manifest, those that are JSON."""
        found = []
        with suppress(OSError, ValueError):
            text = (self.out / RUN_MANIFEST).read_text(encoding="utf-8")
            found += [json.loads(line) for line in text.splitlines()]
        return found


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
        self._python, self._made = python, {}
        self._stack = ExitStack()

    def __enter__(self) -> Trial:
        self.work = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{NAME} ")))
        self._venv = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vivace-venv-")))
        self._stack.callback(lambda: writable(self.work))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> Environment:
        """The virtual environment. NotEvaluated: there can be none for this target here."""
        return self._once("environment", self._make_environment)

    @property
    def sandbox(self) -> Sandbox:
        """Where runs are made."""
        return Sandbox(self.environment, self.work, self.question.limit, self.question.start)

    @property
    def data(self) -> Path:
        """The data folder's inputs, read-only."""
        return self._once("data", self._copy_data)

    @property
    def elsewhere(self) -> Path:
        """A folder to start from that is not the submission's."""
        return self.work / "elsewhere"

    @property
    def first(self) -> Run:
        """All videos: unpacked by zipfile, started from another folder."""
        return self._once("first", lambda: self._run("first", self.data, 0, self.elsewhere))

    @property
    def second(self) -> Run:
        """The same again: unpacked as unzip does, started from its own folder."""
        return self._once("second", lambda: self._run("second", self.data, 1, self.unpacked(1)))

    @property
    def again(self) -> Run:
        """As the first, in the same folder: what it built is there."""
        self.first  # noqa: B018 (made before this one)
        return self._once("again", lambda: self._run("again", self.data, 0, self.elsewhere))

    @property
    def unseen(self) -> tuple[Unseen, Run]:
        """A video unlike those of the data folder."""
        return self._once("unseen", self._run_unseen)

    @property
    def without_images(self) -> Run:
        """A data folder with videos and no image."""
        return self._once("without images", self._run_without_images)

    def unpacked(self, number: int) -> Path:
        """The archive in a folder: 0 by Python's zipfile, 1 by unzip."""
        return self._once(f"unpacked {number}", lambda: self._unpack(number))

    @property
    def unpacker(self) -> str:
        """What unpacked the second time."""
        self.unpacked(1)
        return self._unpacker

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        """What make gives, or the NotEvaluated it raises, made once."""
        if name not in self._made:
            try:
                self._made[name] = make()
            except NotEvaluated as error:
                self._made[name] = error
        if isinstance(self._made[name], NotEvaluated):
            raise self._made[name]
        return self._made[name]

    def _make_environment(self) -> Environment:
        profile = self.submission.profile
        reason = profile.why_not_here()
        if reason:
            raise NotEvaluated(reason)
        if self._python:
            return Environment(self._python, 0.0)
        self._say(f"making an environment of Python {profile.python}")
        folder, image = self.submission.folder, bool(profile.preinstalled)
        return make_environment(self._venv / "environment", profile.interpreter(), folder, image)

    def _copy_data(self) -> Path:
        folder = self.work / "数据"
        copy_without_outputs(self.question.data, folder)
        read_only(folder)
        return folder

    def _unpack(self, number: int) -> Path:
        if not self.submission.is_safe:
            raise NotEvaluated("the archive is not safe to unpack: see S01 and S03")
        folder = self.work / f"解压 {number}"
        if number:
            self._unpacker = unpack_with_unzip(self.submission.path, folder)
        else:
            unpack(self.submission.path, folder)
        return folder

    def _run(self, name: str, data: Path, number: int, start: Path) -> Run:
        sandbox, out, log = self.sandbox, self.work / f"输出 {name}", self.work / f"{name}.log"
        unpacked = self.unpacked(number)
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

    def _run_unseen(self) -> tuple[Unseen, Run]:
        sizes = [tuple(line["size"]) for line in self.first.lines if line.get("size")]
        if not sizes:
            raise NotEvaluated("the first run made no video: see S10")
        unseen = make_unseen(self.question.data, self.work / "unseen", sizes[0])
        return unseen, self._run("unseen", unseen.folder, 0, self.elsewhere)

    def _run_without_images(self) -> Run:
        folder = self.work / "no images"
        copy_without_outputs(self.question.data, folder)
        for path in (folder / "images").iterdir():
            path.unlink()
        (folder / "pairs.csv").unlink(missing_ok=True)
        return self._run("without images", folder, 0, self.elsewhere)


def _may_appear(path: str) -> bool:
    return any(part in path for part in MAY_APPEAR)
