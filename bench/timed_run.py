"""Run infer.py as the contest times it: in a fresh process, its imports and engine loading included.

Runs are made in a hidden folder beside the place that their videos are moved to when all is done.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engines.errors import Exit, FolderError, VivaceError
from pipeline.batch.run_folder import MANIFEST
from pipeline.recipe import Recipe

SCRIPT = Path(__file__).resolve().parent.parent / "infer.py"
LOG = "infer.log"
PREFIX = ".timing-"  # of the hidden folder that runs are made in
LAST_LINES = 12  # of the log, in an error
GRACE = 20.0  # seconds for a run that is stopped to remove its half-written video
GPU_EVERY = 0.25  # seconds between samples of a GPU's memory


class RunFailed(VivaceError):
    """An error: infer.py did not make the videos; the text has its last lines, exit is how it ended."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.exit = Exit(status) if status in list(Exit) and status else Exit.BUG


@dataclass(frozen=True)
class Job:
    """A task for timing: the requests of data, a generator, a device; out gets a folder for each recipe.

    lossless: videos keep every pixel, as the reference should too: else encoding it once hides small changes.
    """

    data: Path
    out: Path
    generator: str = "presenter"
    device: str = "cpu"
    rounds: int = 3
    lossless: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be 1 or more, got {self.rounds}")


@dataclass(frozen=True)
class Ended:
    """The end of a process: its exit status, wall seconds from start to end, what it printed."""

    status: int
    seconds: float
    stdout: str


@dataclass(frozen=True)
class Outcome:
    """A run that made videos: the script's wall seconds, and the manifest line of each video."""

    seconds: float
    lines: list[dict]

    @property
    def made(self) -> dict[str, dict]:
        """Return the manifest lines of finished videos, by id."""
        return {line["id"]: line for line in self.lines if line["status"] == "done"}

    @property
    def failed(self) -> dict[str, str]:
        """Return why the other videos are missing, by id."""
        return {line["id"]: line["error"] for line in self.lines if line["status"] != "done"}


Start = Callable[[list[str], Path], Ended]


def run_script(recipe: Recipe, job: Job, data: Path, folder: Path, start: Start) -> Outcome:
    """Make the videos of data in a folder that is new or emptied; RunFailed if there is none in the end.

    Single bad requests are no failure of the run. What infer.py says goes to the folder's infer.log.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = folder / f"{recipe.name}.toml"
    settings.write_text(recipe.to_toml(), encoding="utf-8")
    command = [
        sys.executable, str(SCRIPT), "--data", str(data), "--out", str(folder), "--json",
        "--generator", job.generator, "--device", job.device, "--recipe", str(settings),
        *(["--lossless"] if job.lossless else []),
    ]  # fmt: skip
    ended = start(command, folder / LOG)
    if ended.status in (Exit.OK, Exit.SOME_FAILED):
        outcome = Outcome(ended.seconds, _manifest_lines(recipe, ended.stdout))
        if outcome.made:
            return outcome
    said = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    last = "\n".join(f"  {line}" for line in said[-LAST_LINES:])
    raise RunFailed(f"{recipe.name}: infer.py {_ending(ended.status)}:\n{last}", ended.status)


def start_process(command: list[str], log: Path) -> Ended:
    """Run a command to its end, its stderr in the log: a full pipe would hang it.

    Whatever interrupts the waiting, Ctrl-C too, ends the process first.
    """
    # What is no text in a file name is printed as \udcff, which is valid JSON.
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace"}
    with log.open("wb") as messages:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, env=environment
        )
        try:
            stdout, _ = process.communicate()
            seconds = time.perf_counter() - began
        finally:
            _end(process)
    return Ended(process.returncode, seconds, stdout.decode("utf-8", "replace"))


@contextmanager
def watching_gpu(device: str) -> Iterator[list[int]]:
    """Sample a GPU's memory in use, in MiB, while the block runs; the first sample is from before it.

    There are no samples without nvidia-smi, or on another device than cuda. All processes on that GPU count;
    it is the one with this number for nvidia-smi. Sampling costs time, so a timed run is not watched.
    """
    samples: list[int] = []
    tool = shutil.which("nvidia-smi") if device.startswith("cuda") else None
    if tool is None:
        yield samples
        return
    query = [tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    query.append(f"--id={device.partition(':')[2] or '0'}")
    done = threading.Event()

    def sample() -> None:
        answer = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        samples.extend(int(word) for word in answer.stdout.split() if word.isdecimal())  # or "[N/A]"

    def keep_sampling() -> None:
        while not done.wait(GPU_EVERY):
            sample()

    sample()
    watcher = threading.Thread(target=keep_sampling, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Make a hidden folder in out that goes after the block, and remove those that killed processes left.

    The owner's process id is in its name, so all that write to the same out must be of one machine.
    """
    for folder in out.glob(f"{PREFIX}*"):
        owner = re.match(rf"{re.escape(PREFIX)}([1-9]\d{{0,8}})-", folder.name)
        if owner and not _is_another(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)
    prefix = f"{PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def check_replaceable(folder: Path) -> None:
    """Raise FolderError if there is something of that name that an earlier timing did not put there."""
    if not os.path.lexists(folder):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    ours = {MANIFEST, LOG} <= names
    known = (MANIFEST, LOG, f"{folder.name}.toml")
    if not ours or not all(name in known or name.endswith(".mp4") for name in names):
        raise FolderError(f"{folder} is there and was not made by timing a recipe; choose another --out")


def keep(made: Path, lines: Iterable[dict], target: Path) -> None:
    """Move a recipe's folder to its place, and name that in its manifest and its log; remove an older one.

    lines: of the manifest, which also names the recipe from now on: by the place's name.
    """

    def placed(value: object) -> object:
        return value.replace(str(made), str(target)) if isinstance(value, str) else value

    texts = []
    for line in lines:
        line = {key: placed(value) for key, value in line.items()}
        texts.append(json.dumps({**line, "recipe": target.name}, ensure_ascii=False))
    (made / MANIFEST).write_text("\n".join(texts) + "\n", encoding="utf-8", errors="backslashreplace")
    # As infer.py's stderr is told to write what is no text in a path.
    names = [str(path).encode("utf-8", "backslashreplace") for path in (made, target)]
    (made / LOG).write_bytes((made / LOG).read_bytes().replace(*names))
    if target.exists():
        os.replace(target, made.with_name(f"{made.name} before"))
    os.replace(made, target)


def _manifest_lines(recipe: Recipe, printed: str) -> list[dict]:
    lines = []
    for text in filter(None, printed.split("\n")):  # splitlines also splits at what a name or prompt may hold
        with suppress(ValueError):
            lines.append(json.loads(text))
            if isinstance(lines[-1], dict):
                continue
        reason = f"{text[:80]!r} is among the manifest lines that infer.py prints; does the generator print?"
        raise RunFailed(f"{recipe.name}: {reason}", Exit.BUG)
    return lines


def _end(process: subprocess.Popen) -> None:
    """Stop the process if it still runs, kindly first, and close its pipe."""
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}" if status else "made no video"


def _is_another(process: int) -> bool:
    """Return whether another process of that number lives: in a container numbers come again."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True
