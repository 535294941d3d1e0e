"""List what is measured, the most telling first; run it in a process; record each figure in a file."""

from __future__ import annotations

import faulthandler
import importlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.judge import plain
from engines.files import atomic_write
from lab.gpu.table import markdown

ROOT = Path(__file__).resolve().parents[2]
HANG, LEAST = 1.5, 30  # times its estimate that an entry may take, and seconds that each may take
FITS = 0.6  # of its estimate that must be left: it is begun, and keeps what it has learnt by the end
# Modules are imported before any entry. Seconds that it should take and may take: twelve of a processor's
# here, twenty with all that diffusers finds on a machine. A second try has files in memory.
IMPORTS, IMPORT_SECONDS, IMPORT_LIMIT, TRIES = "imports", 25, 90, 2
TESTS_LIMIT = 90  # seconds, after which the tests are ended
WORDS = 300  # characters of a reason
FIELDS = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw",
    "power.limit",
)  # fmt: skip
Emit = Callable[[str, object], None]


@dataclass(frozen=True)
class Place:
    """A place to measure at: the device, whether it is a rehearsal with tiny networks, a folder for files."""

    device: str
    tiny: bool
    folder: Path


@dataclass(frozen=True)
class Entry:
    """A measurement: seconds it should take on a large GPU, and measure(place, emit, *given).

    measure is named as module:function, because modules import torch. emit(name, figure) writes a figure at
    once; of one name the last counts. most: seconds that it may take, if that is more than others may.
    """

    name: str
    seconds: int
    measure: str
    given: tuple = ()
    most: int = 0

    @property
    def module(self) -> str:
        """The module that measures it."""
        return self.measure.partition(":")[0]

    @property
    def limit(self) -> float:
        """The seconds after which it hangs."""
        return max(HANG * self.seconds, LEAST, self.most)


def _network(name: str, seconds: int, *variants: str) -> Entry:
    return Entry(name, seconds, "lab.gpu.measure:measure_network", (name.partition(" ")[0], variants))


MACHINE = Entry("machine", 30, "lab.gpu.ceilings:measure_machine")
# Right numbers first, then the bundled generator end to end, then large networks.
FIRST = (
    MACHINE,
    Entry("tests", 45, "lab.gpu.memory_tests:run_tests", most=TESTS_LIMIT + 10),
    _network("presenter", 15, "eager:fp32", "eager:fp16", "eager:bf16", "engine:fp16", "graph:fp16"),
    Entry("presenter end to end", 45, "lab.gpu.frames:measure_frames"),
    _network("wan-81", 85, "eager:bf16", "cudnn:bf16", "engine:bf16"),
    _network("mimicmotion-72", 85, "eager:fp16", "channels_last:fp16", "engine:fp16"),
    _network("wan-decode", 65, "eager:fp16", "channels_last:fp16", "engine:fp16"),
)
# By predicted gain. One compiled variant each: torch takes one network's code for another that is its like,
# whatever attention it was compiled with. The machine is measured here only where the first command's results
# are not at hand; tables need its rates for floors.
SECOND = (
    _network("mimicmotion-72 compiled", 130, "channels_last:fp16", "compile+channels_last:fp16"),
    _network("wan-81 compiled", 110, "cudnn:bf16", "compile+cudnn:bf16"),
    _network("wan-81 compiled plain", 70, "eager:bf16", "compile:bf16"),
    MACHINE,
)
COMMANDS = {"first": (FIRST, 400), "second": (SECOND, 340)}  # and seconds that each may take
ENTRIES = {entry.name: entry for entry in (*FIRST, *SECOND)}


class Record:
    """A machine's results: <name>.json, written again after each figure, and tables in <name>.md."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict] = json.loads(path.read_text())["entries"] if path.is_file() else {}

    def status(self, entry: str) -> str | None:
        """Return what became of an entry: begun, done, or in words why not."""
        return self.entries.get(entry, {}).get("status")

    def put(self, entry: str, name: str, figure: object) -> None:
        """Note a figure of an entry, in the file too."""
        self.entries.setdefault(entry, {})[name] = figure
        found = plain({"what": "python -m lab.gpu", "entries": self.entries})
        self._write(".json", json.dumps(found, indent=1, allow_nan=False) + "\n")

    def note_ended(self) -> list[str]:
        """Say of what was begun, by a process that is no more, that it ended that one; return its names."""
        ended = [name for name in self.entries if self.status(name) == "begun"]
        for name in ended:
            at = self.entries[name].get("at", "its start")
            self.put(name, "status", f"ended the process, or hung, at {at}")
        return ended

    def write_table(self) -> None:
        """Write the tables of what is known."""
        self._write(".md", markdown(self.entries))

    def _write(self, suffix: str, text: str) -> None:
        with atomic_write(self.path.with_suffix(suffix)) as draft:
            draft.write_text(text, encoding="utf-8")


def measure_entries(
    entries: Sequence[Entry], place: Place, record: Record, until: float, say: Callable[[str], None]
) -> Iterator[str]:
    """Measure those that have no status yet and that fit before `until`, by time.monotonic(); yield names.

    A name is yielded once its figures are in the files. What was begun has ended the process before this one,
    and is left at that. One that hangs, or is not done by then, ends this process with status 1, whatever it
    is in: an alarm of Python's would wait for a kernel to end.
    """
    record.note_ended()
    waiting = [entry for entry in entries if not record.status(entry.name)]
    due = dict.fromkeys(entry.module for entry in waiting if _fits(entry, until))
    missing = import_modules(due, place, record, until) if due else {}
    for entry in waiting:
        left = until - time.monotonic()
        why = missing.get(entry.module)
        if not why and not _fits(entry, until):
            why = f"its {entry.seconds} s did not fit into {left:.0f} s"
        if why:
            record.put(entry.name, "left_out", why)
            say(f"{entry.name}: left out: {why}")
            continue
        say(f"{entry.name}: about {entry.seconds} s, {left:.0f} s left")
        before = record.entries.pop(entry.name, {})
        if "earlier" in before:
            record.put(entry.name, "earlier", before["earlier"])
        record.put(entry.name, "status", "begun")
        _measure(entry, place, record, left)
        record.write_table()
        yield entry.name


def import_modules(modules: Iterable[str], place: Place, record: Record, until: float) -> dict[str, str]:
    """Import what entries need, lest their limits count it; return why not, by module, where one fails.

    Seconds of each are the figures of an entry of their own. One that ended two processes is not tried again.
    """
    emit, missing, took = partial(record.put, IMPORTS), {}, {}
    tries = dict(record.entries.get(IMPORTS, {}).get("tries", {}))
    emit("status", "begun")
    with _alarm(min(IMPORT_LIMIT, until - time.monotonic()), place):
        for module in modules:
            if tries.get(module, 0) == TRIES:
                missing[module] = f"the import of {module} ended {TRIES} processes"
                continue
            begun, tries[module] = time.monotonic(), tries.get(module, 0) + 1
            emit("at", module)
            emit("tries", tries)
            try:
                importlib.import_module(module)
            except (ImportError, OSError, RuntimeError) as refusal:  # the last is diffusers' own
                missing[module] = f"{module}: {type(refusal).__name__}: {refusal}"[:WORDS]
            tries[module], took[module] = 0, round(time.monotonic() - begun, 1)
            emit("modules", took)
    emit("tries", tries)
    emit("seconds", round(sum(took.values()), 1))
    emit("status", "done")
    return missing


def _fits(entry: Entry, until: float) -> bool:
    return until - time.monotonic() >= FITS * entry.seconds


@contextmanager
def _alarm(seconds: float, place: Place) -> Iterator[None]:
    """End the process after seconds, unless the block has ended; never in a rehearsal."""
    if not place.tiny:  # nobody knows how busy a processor is
        faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _measure(entry: Entry, place: Place, record: Record, left: float) -> None:
    name = entry.measure.partition(":")[2]
    measure = getattr(importlib.import_module(entry.module), name)
    begun, emit = time.monotonic(), partial(record.put, entry.name)
    with _alarm(min(entry.limit, left), place):
        measure(place, emit, *entry.given)
    emit("seconds", round(time.monotonic() - begun, 1))
    emit("gpu", gpu_state())
    emit("status", "done")


def gpu_state() -> dict[str, str] | None:
    """Ask nvidia-smi for the first GPU's state, by its own names; None without one. Nothing is set."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return dict(zip(FIELDS, values, strict=True)) if len(values) == len(FIELDS) else None


def file_name(gpu: str) -> str:
    """Return a GPU's name as that of a file: nvidia-h200 for NVIDIA H200."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
