"""Keep the output folder of a run: its manifest, which survives a kill at any byte, and its lock.

Manifest lines are appended and synced one by one; a line that was cut short is dropped. The lock is an flock,
which the system releases when its process dies.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import TextIO

from engines.errors import DiskError, FolderError
from pipeline.video.writer import remove_unfinished

MANIFEST = "manifest.jsonl"
LOCK = ".lock"  # exists while a run holds the folder, and after a run was killed
FIELDS = {"id": str, "status": str}  # of every line; and of those of finished videos:
DONE_FIELDS = {"output_sha256": str, "frames": int, "total_seconds": int | float}
LARGEST = 2**63  # numbers of a line are below this
MADE = ".made"  # subfolder for videos of worker processes until this process moves them to their final path


def manifest_lines(folder: Path) -> list[dict]:
    """Return all lines of a run's manifest as they stand there. OSError; ValueError: one is no JSON."""
    return [json.loads(line) for line in (folder / MANIFEST).read_text(encoding="utf-8").split("\n") if line]


def finished_lines(folder: Path) -> dict[str, dict]:
    """Return the last line of each video that was finished, by id, as a later failure leaves it as it was.

    OSError. ValueError, KeyError, TypeError: it is no manifest of ours.
    """
    return {line["id"]: line for line in manifest_lines(folder) if line["status"] == "done"}


class RunFolder:
    """An output folder that only this process writes to; a context manager.

    lines: the last manifest line of each id. finished: the last one that says "done", which a failure since
    then does not undo, for it leaves the video as it was. restart: begin without them; the manifest is
    emptied when the first new line comes, and videos stay until new ones replace them. FolderError: the
    folder is not writable, another run holds its lock, or its manifest is invalid.
    """

    def __init__(self, path: Path, restart: bool = False) -> None:
        self.path, self.lines, self.finished = path, {}, {}
        self._restart, self._stack = restart, ExitStack()

    def __enter__(self) -> RunFolder:
        check_writable(self.path)
        with self._stack:
            self._stack.enter_context(locked_folder(self.path))
            self._clean()
            self._stack.callback(self._clean)
            self._open()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def record(self, line: dict, sync: bool = True) -> dict:
        """Append a video's line to the manifest with the current time, and return it. DiskError.

        sync: wait until the disk has it; not needed for a line that the next run would find again.
        """
        line = {**line, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        # A file name that is no text has bytes that UTF-8 cannot hold; as \udcff they still make valid JSON.
        left = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        self._check_there()
        try:
            if self._restart:
                os.ftruncate(self._manifest, 0)
                self._restart = False
            while left:
                left = left[os.write(self._manifest, left) :]
            if sync:
                os.fsync(self._manifest)
        except OSError as error:
            where = self.path / MANIFEST
            raise DiskError(f"{where}: cannot be written ({error.strerror}); make room, run again") from error
        self._note(line)
        return line

    def _note(self, line: dict) -> None:
        self.lines[line["id"]] = line
        if line["status"] == "done":
            self.finished[line["id"]] = line

    def _check_there(self) -> None:
        """Raise DiskError if the manifest was removed: what is written to it now would be lost."""
        path = self.path / MANIFEST
        try:
            there = os.path.samestat(os.fstat(self._manifest), path.lstat())
        except OSError:
            there = False
        if not there:
            raise DiskError(f"{path}: was removed or replaced while this run wrote to it; run again")

    def take(self, made: Path) -> Path:
        """Move a video from MADE into this folder, to be recorded next, and return its new path. DiskError.

        So at most one video is in this folder but not in the manifest, however many processes are killed.
        """
        try:
            return made.rename(self.path / made.name)
        except OSError as error:
            raise DiskError(f"{made}: cannot be moved ({error.strerror}); run again") from error

    def _clean(self) -> None:
        """Remove what killed processes left behind: temporary video files and MADE."""
        with suppress(OSError):  # the folder itself may have been removed
            remove_unfinished(self.path)
        made = self.path / MADE
        if made.is_symlink():  # not ours: workers would write where it leads
            made.unlink()
        rmtree(made, ignore_errors=True)

    def _open(self) -> None:
        """Open the manifest, read its lines, and cut off an incomplete last one. FolderError."""
        path = self.path / MANIFEST
        try:
            self._manifest = _open_own(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise FolderError(f"{path}: cannot be opened ({error.strerror}); choose another --out") from error
        self._stack.callback(os.close, self._manifest)
        if self._restart:
            return
        whole = 0
        with open(self._manifest, "rb", closefd=False) as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):  # else it was cut short, and is the last
                    found = _parsed(line, f"{path}, line {number}")
                    self._note(found)
                    whole += len(line)
        if os.fstat(self._manifest).st_size > whole:
            os.ftruncate(self._manifest, whole)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, with this process's id and host in it. FolderError: another process holds it."""
    path = folder / LOCK
    try:
        while (lock := _locked(path)) is None:
            continue
    except BlockingIOError as error:
        raise FolderError(
            f"{folder}: is in use by {_holder(path)}; wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        own = f"{path.name}: {error.strerror}"
        why = own if error.filename else f"{error.strerror}; does its file system have locks?"
        raise FolderError(f"{folder}: cannot be locked ({why}) Choose another folder.") from error
    with lock:
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> TextIO | None:
    """Return the lock file, emptied and locked until it is closed; None if its last holder just removed it.

    BlockingIOError: another process holds it.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(open(_open_own(path, os.O_WRONLY | os.O_APPEND), "a"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.lstat())):
            return None
        lock.truncate(0)
        stack.pop_all()
        return lock


def _open_own(path: Path, flags: int) -> int:
    """Open a file of ours that has a fixed name, and return its descriptor; it is made if it is not there.

    A link is not followed and nothing but a regular file is opened, else whoever may write to the folder
    could have another file emptied, or a pipe waited for. OSError says what stands there.
    """
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link; remove it", str(path))
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file; remove it", str(path))
    return descriptor


def _holder(path: Path) -> str:
    """Return the name that the lock's holder wrote into it, or "another process"."""
    with suppress(OSError):
        return path.read_text().strip() or "another process"
    return "another process"


def _parsed(line: bytes, where: str) -> dict:
    """Return the content of a manifest line. FolderError: it is not one."""
    try:
        found = json.loads(line)
        needed = FIELDS | (DONE_FIELDS if found["status"] == "done" else {})
        for name, kind in needed.items():
            value = found[name]
            if not isinstance(value, kind) or (kind is not str and not abs(value) < LARGEST):
                raise ValueError(f"{name} is {str(value)[:60]!r}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{where}: is no line of a manifest ({error!r}); --restart begins a new one"
        raise FolderError(reason) from error
    return found


def check_replaced(out: Path) -> None:
    """Raise FolderError if a file cannot be written to a path, in place of what is there, before the work."""
    if out.is_dir():
        raise FolderError(f"{out} is a folder, and a file is to be written there; choose another path")
    check_writable(out.parent)


def check_writable(out: Path) -> None:
    """Make the output folder; raise FolderError if no file can be created in it, before any costly work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise FolderError(
            f"cannot write to the output folder {out}: {error.strerror}; choose another --out"
        ) from error
