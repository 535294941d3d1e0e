"""List what is measured, the most telling first; run it in a process; record each figure in a file."""

from __future__ import annotations

import faulthandler
import importlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from bench.judge import plain
from engines.files import atomic_write
from lab.gpu.table import markdown

ROOT = Path(__file__).resolve().parents[2]
HANG = 1.5  # times its estimate that an entry may take
TESTS, TESTS_END = "tests/gpu/test_gpu_memory.py", 60  # and seconds after which they are ended
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
    once; of one name the last counts.
    """

    name: str
    seconds: int
    measure: str
    given: tuple = ()


def _network(name: str, seconds: int, *variants: str) -> Entry:
    return Entry(name, seconds, "lab.gpu.measure:measure_network", (name.partition(" ")[0], variants))


MACHINE = Entry("machine", 30, "lab.gpu.ceilings:measure_machine")  # whatever comes next needs its rates
FIRST = (
    MACHINE,
    Entry("tests", 45, "lab.gpu.run:run_tests"),
    _network("presenter", 15, "eager:fp32", "eager:fp16", "eager:bf16", "engine:fp16", "graph:fp16"),
    Entry("presenter end to end", 45, "lab.gpu.frames:measure_frames"),
    _network("wan-decode", 65, "eager:fp16", "channels_last:fp16", "engine:fp16"),
    _network("mimicmotion-72", 85, "eager:fp16", "channels_last:fp16", "engine:fp16"),
    _network("wan-81", 85, "eager:bf16", "cudnn:bf16", "engine:bf16"),
)
SECOND = (
    MACHINE,
    _network("wan-81 compiled", 110, "cudnn:bf16", "compile+cudnn:bf16"),
    _network("mimicmotion-72 compiled", 130, "channels_last:fp16", "compile+channels_last:fp16"),
)
COMMANDS = {"first": (FIRST, 400), "second": (SECOND, 300)}  # and seconds that each may take
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

    def write_table(self) -> None:
        """Write the tables of what is known."""
        self._write(".md", markdown(self.entries))

    def _write(self, suffix: str, text: str) -> None:
        with atomic_write(self.path.with_suffix(suffix)) as draft:
            draft.write_text(text, encoding="utf-8")


def measure_entries(
    entries: Sequence[Entry], place: Place, record: Record, until: float, say: Callable[[str], None]
) -> None:
    """Measure those that have no status yet and whose estimate fits before `until`, by time.monotonic().

    One that was begun has ended the process before this one, and is left at that. One that hangs ends this
    process with status 1, whatever it hangs in: an alarm of Python's would wait for a kernel to end.
    """
    for entry in entries:
        if record.status(entry.name) == "begun":
            at = record.entries[entry.name].get("at", "its start")
            record.put(entry.name, "status", f"ended the process, or hung, at {at}")
        if record.status(entry.name):
            continue
        left = until - time.monotonic()
        if entry.seconds > left:
            record.put(entry.name, "left_out", f"its {entry.seconds} s did not fit into {left:.0f} s")
            say(f"{entry.name}: left out: {record.entries[entry.name]['left_out']}")
            continue
        say(f"{entry.name}: about {entry.seconds} s, {left:.0f} s left")
        record.entries.pop(entry.name, None)
        record.put(entry.name, "status", "begun")
        _measure(entry, place, record)


def _measure(entry: Entry, place: Place, record: Record) -> None:
    module, _, name = entry.measure.partition(":")
    begun, emit = time.monotonic(), partial(record.put, entry.name)
    if not place.tiny:  # nobody knows how busy a processor is
        faulthandler.dump_traceback_later(HANG * entry.seconds, exit=True)
    getattr(importlib.import_module(module), name)(place, emit, *entry.given)
    faulthandler.cancel_dump_traceback_later()
    emit("seconds", round(time.monotonic() - begun, 1))
    emit("gpu", gpu_state())
    emit("status", "done")


def run_tests(place: Place, emit: Emit) -> None:
    """Run the GPU memory tests in a process of their own: how many passed, failed, were skipped, and why."""
    report = place.folder / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", TESTS, f"--junitxml={report}"]
    command += ["-p", "no:cacheprovider", "-o", "junit_logging=no", "-W", "default"]  # other versions warn
    ended = None if place.tiny else TESTS_END
    try:
        status = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=ended)
        emit("pytest", status.returncode)
    except subprocess.TimeoutExpired:
        emit("pytest", f"ended after {ended} s")
    if not report.is_file():
        return
    counts, reasons = Counter(), {}
    for case in ElementTree.parse(report).iter("testcase"):
        found = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        counts["passed" if found is None else "skipped" if found.tag == "skipped" else "failed"] += 1
        if found is not None:
            reasons[case.get("name")] = " ".join((found.get("message") or "").split())[:WORDS]
    emit("counts", dict(counts))
    emit("reasons", reasons)


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
