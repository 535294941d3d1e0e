"""Track the requests of a run: which videos exist already, the result of each other one, the exit code.

A finished video is kept while its inputs, its settings and its file are unchanged. A run with other inputs or
settings in the same folder is refused, so that all videos of a folder are made alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from engines.artifact import differences, file_sha256
from engines.errors import EngineError, Exit, FolderError, InputError, not_a_file
from engines.progress import Progress
from pipeline.batch.dataset import Pairing, Request
from pipeline.batch.run_folder import RunFolder
from pipeline.runner import VideoRunner

MOST_SHOWN = 8  # differences listed in an error, failed ids listed in a table
LABELS = ("recipe",)  # fields that are not compared: a recipe's content counts, not its name
SHOWN_DIGITS = 16  # of a hash


class Jobs:
    """A run's list of requests, with the state and the manifest line of each.

    identity: VideoRunner.identity, which must equal that of every finished video in the folder and of every
    video still to be made. todo: the requests that are not finished. lines: the manifest lines so far; those
    of kept videos have "kept": true. emit: called with each line as soon as it is known. FolderError: the
    folder's videos were made with other inputs or settings.
    """

    def __init__(
        self,
        pairing: Pairing,
        folder: RunFolder,
        identity: Mapping[str, object],
        say: Callable[[str], None],
        emit: Callable[[dict], None] | None = None,
    ) -> None:
        self.out, self.identity = folder.path, identity
        self._folder, self._say, self._emit = folder, say, emit
        self._numbers = {request.id: number for number, request in enumerate(pairing.requests, 1)}
        self.lines: list[dict] = []
        self._reasons: set[Exit] = set()
        finished = dict(folder.finished)
        unreadable = _check_same(pairing.requests, finished, folder, identity)
        self._list_ignored(pairing.ignored)
        for name, reason in {**pairing.unpaired, **unreadable}.items():
            self.ended({"id": name, "status": "failed", "error": reason}, Exit.INPUT, sync=False)
        usable = [request for request in pairing.requests if request.id not in unreadable]
        self.todo = [request for request in usable if not self._keep(finished.get(request.id))]
        kept = len(usable) - len(self.todo)
        if kept:
            say(f"{kept} of {len(pairing.requests)} videos were finished before and are kept")

    @property
    def status(self) -> Exit:
        """The run's exit code: SOME_FAILED if videos were made and others failed; else what all have.

        Where none was made, for several reasons, the lowest: what must be mended before the others matter.
        """
        made, failed = Exit.OK in self._reasons, self._reasons - {Exit.OK}
        return Exit.SOME_FAILED if made and failed else min(failed, default=Exit.OK)

    def label(self, name: str) -> str:
        """Return a request's name for messages, "[number/count] id"."""
        return f"[{self._numbers[name]}/{len(self._numbers)}] {name}"

    def taken(self, line: dict, worker: str) -> dict:
        """Move a video that another process made to its final path; return its manifest line. DiskError."""
        output = {"output": str(self._folder.take(Path(line["output"])))} if line["status"] == "done" else {}
        return {**line, **output, "worker": worker}

    def ended(self, line: dict, reason: Exit, sync: bool = True) -> None:
        """Write a video's manifest line, and print its result. DiskError.

        reason: OK, or why it failed. sync: see RunFolder.record.
        """
        if line["status"] == "failed":
            self._say(f"{line['id']}: failed: {line['error']}")
        else:
            label = self.label(line["id"])
            self._say(f"{label}: {line['output']} ({line['frames']} frames, {line['total_seconds']:.1f} s)")
            for note in line["notes"]:
                self._say(f"{label}: note: {note}")
        self._add(self._folder.record(line, sync), reason)

    def check(self, identity: Mapping[str, object], name: str) -> None:
        """Raise EngineError if worker `name` has another identity than the first: other files or versions."""
        found = differences(_plain(identity), _plain(self.identity), built="first started")
        if found:
            raise EngineError(f"{name} would make other videos: {'; '.join(found)}")

    def lost(self, request: Request, why: str, reason: Exit) -> None:
        """Record as failed a video whose worker died before it could report. DiskError."""
        line = {**request.described(), **self.identity, "status": "failed", "error": why}
        self.ended(line, reason)

    def conclude(self) -> Exit:
        """Print the results of all videos, and return the run's exit code."""
        if len(self.lines) > 1:
            for text in table(self.lines):
                self._say(text)
        done = sum(line["status"] == "done" for line in self.lines)
        self._say(f"{done} of {len(self.lines)} videos are in {self.out}")
        return self.status

    def _list_ignored(self, ignored: Mapping[str, str]) -> None:
        """Print what of the data folder is not taken, and give it a manifest line, once. DiskError."""
        for number, (path, reason) in enumerate(ignored.items()):
            if number < MOST_SHOWN:
                self._say(f"note: {reason}")
            line = {"id": path, "status": "ignored", "error": reason}
            if self._folder.lines.get(path, {}).get("error") != reason:
                self._folder.record(line, sync=False)
        if len(ignored) > MOST_SHOWN:
            self._say(f"note: and {len(ignored) - MOST_SHOWN} more are not taken; the manifest has them all")

    def _keep(self, line: dict | None) -> bool:
        """Return whether a finished video's file is unchanged; if so, count its line (None: no line).

        Where a later line says that it failed, the manifest gets its line again. DiskError.
        """
        path = self.out / f"{line['id']}.mp4" if line else None
        if path is None or not_a_file(path) or file_sha256(path) != line["output_sha256"]:
            if line:
                self._say(f"{line['id']}: was finished, but {path} is not that video any more; made again")
            return False
        if self._folder.lines[line["id"]] is not line:
            line = self._folder.record(line, sync=False)
        self._add({**line, "kept": True}, Exit.OK)
        return True

    def _add(self, line: dict, reason: Exit) -> None:
        self.lines.append(line)
        self._reasons.add(reason)
        if self._emit:
            self._emit(line)


def table(lines: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Give a table's rows: videos, frames and seconds for each worker, then the ids of those that failed."""
    by_worker: dict[str, list[Mapping[str, object]]] = {}
    failed = []
    for line in lines:
        if line["status"] == "done":
            worker = "kept" if line.get("kept") else line.get("worker", "made")
            by_worker.setdefault(worker, []).append(line)
        else:
            failed.append(line["id"])
    if by_worker:
        yield f"{'':20}{'videos':>8}{'frames':>8}{'seconds':>10}"
    for worker, made in sorted(by_worker.items()):
        frames, seconds = (sum(line[key] for line in made) for key in ("frames", "total_seconds"))
        yield f"{worker:20}{len(made):8}{frames:8}{seconds:10.1f}"
    if failed:
        more = f" and {len(failed) - MOST_SHOWN} more" if len(failed) > MOST_SHOWN else ""
        yield f"failed: {', '.join(failed[:MOST_SHOWN])}{more}; the manifest says why"


def run_here(jobs: Jobs, runner: VideoRunner) -> None:
    """Make the videos that are not finished in this process, one after the other. DiskError."""
    with closing(runner):
        for request, upcoming in zip(jobs.todo, [*jobs.todo, None][1:], strict=True):
            progress = partial(Progress, jobs.label(request.id))
            jobs.ended(*runner(request, jobs.out, progress, upcoming=upcoming))


def _check_same(
    requests: list[Request], finished: Mapping[str, dict], folder: RunFolder, identity: Mapping[str, object]
) -> dict[str, str]:
    """Raise FolderError if finished videos differ in inputs or settings from what would be made now.

    Return, by id, why the inputs of finished videos cannot be read any more.
    """
    expected, found, unreadable = _plain(identity), [], {}
    for line in finished.values():
        was = _plain(line)
        found += [text for text in differences(expected, was, built="made") if text not in found]
    for request in requests:
        if request.id in finished:
            try:
                changed = list(_changed_inputs(request, finished[request.id]))
            except InputError as error:
                unreadable[request.id] = str(error)
            else:
                found += (f"{request.id}: {text}" for text in changed)
    if found:
        more = [f"and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
        raise FolderError(
            "\n  ".join([f"{folder.path} holds videos that were made otherwise:", *found[:MOST_SHOWN], *more])
            + "\nchoose another --out, or make them all anew with --restart"
        )
    return unreadable


def _changed_inputs(request: Request, line: Mapping[str, object]) -> Iterator[str]:
    """Give the differences between a request's files and seed and those in its manifest line. InputError."""
    known = line.get("columns") if isinstance(line.get("columns"), Mapping) else {}
    columns = {name: request.columns.get(name, "") for name in sorted({*known, *request.columns})}
    now = {"seed": request.seed, **request.hashes(), "columns": columns}
    line = {**line, "columns": known}
    yield from differences(_plain(now), _plain(line), built="made")


def _plain(line: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a manifest line that are compared, short enough to print."""
    fields = {name: value for name, value in line.items() if name not in LABELS}
    for name, value in fields.items():
        if name.endswith("_sha256"):
            fields[name] = str(value)[:SHOWN_DIGITS]
    if isinstance(fields.get("device"), str):  # another GPU of the same machine will do
        fields["device"] = fields["device"].partition(":")[0]
    if isinstance(fields.get("built"), Mapping):
        fields["built"] = {
            component: each.get("file") if isinstance(each, Mapping) else each
            for component, each in fields["built"].items()
        }
    return fields
