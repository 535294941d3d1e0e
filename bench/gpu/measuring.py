"""Start the process that measures, keep what it tells, and go on without what ended it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.gpu.plan import START, Entry
from bench.gpu.record import Record
from engines.spec import EngineError

ROOT = Path(__file__).resolve().parents[2]
EVERY = 0.3  # seconds between looks at what was told
PATIENCE, EXTRA = 4, 60  # times its estimate that an entry may take, and seconds beside
GRACE = 5  # seconds before the deadline in which what was told is still written


@dataclass(frozen=True)
class Workplace:
    """Where it happens: a folder for all that is made on the way, a device, whether it is a rehearsal.

    deadline: when to stop, in time.monotonic()'s seconds, which processes of a machine share.
    """

    folder: Path
    device: str
    tiny: bool
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def environment(self) -> dict[str, str]:
        """With what was installed here before what is installed anyway."""
        paths = [str(self.folder / "site"), str(ROOT), os.environ.get("PYTHONPATH")]
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        return {**found, "VIVACE_BUILT": str(self.folder / "built")} if self.tiny else found


def measure_entries(
    entries: Sequence[Entry], place: Workplace, record: Record, say: Callable[[str], None]
) -> list[str]:
    """Measure those that are not done yet and fit into the time; the names of those that are left.

    A process does one after the other. If it dies, or hangs, the way it was at is noted as refused, and a new
    one goes on without it.
    """
    while True:
        waiting = [each for entry in entries if (each := _remaining(entry, record)).ways]
        if not waiting or place.left < START + min(entry.seconds for entry in waiting):
            break
        fault = _Worker(waiting, place, record).run()
        record.write()
        if fault is None:
            break
        say(fault)
        if place.left <= GRACE:
            break
    return [entry.name for entry in entries if _remaining(entry, record).ways]


def _remaining(entry: Entry, record: Record) -> Entry:
    """The entry with the ways that are still to be measured: all of them, but those that end the process."""
    ended = record.ended(entry.name)
    none_left = record.done(entry.name) or "" in ended
    return replace(entry, ways=() if none_left else tuple(way for way in entry.ways if way not in ended))


class _Worker:
    """One process and what it tells."""

    def __init__(self, entries: Sequence[Entry], place: Workplace, record: Record) -> None:
        self._place, self._record = place, record
        self._unhurried = math.inf if place.tiny else EXTRA  # nobody knows how busy a processor is
        self._allowed = {entry.name: PATIENCE * entry.seconds + self._unhurried for entry in entries}
        self._entry, self._way, self._since, self._read = "", "", time.monotonic(), 0
        place.folder.mkdir(parents=True, exist_ok=True)
        self._lines, self._log = place.folder / "told.jsonl", place.folder / "worker.log"
        task = {
            "entries": [asdict(entry) for entry in entries], "device": place.device, "tiny": place.tiny,
            "folder": str(place.folder), "lines": str(self._lines), "deadline": place.deadline - GRACE,
        }  # fmt: skip
        self._task = place.folder / "task.json"
        self._task.write_text(json.dumps(task))

    def run(self) -> str | None:
        """None if it came to the end of its list; else where it was, and what ended it."""
        self._lines.write_text("")
        command = [sys.executable, "-m", "bench.gpu", str(self._task)]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._place.environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                killed = self._watch(process)
            finally:
                process.kill()
                process.wait()
        self._take()
        if process.returncode == 0:
            return None
        late = self._place.left <= GRACE
        why = killed or f"the process ended with status {process.returncode}: {self._last_words()}"
        if not self._entry:
            raise EngineError(f"nothing could be measured: {why}; all it said is in {self._log}")
        self._record.stopped(self._entry, why, None if late else self._way)
        return f"{self._entry}: {self._way}: {why}"

    def _watch(self, process: subprocess.Popen) -> str:
        """Wait for its end; why it must be ended, if it must."""
        while process.poll() is None:
            if self._take():
                self._record.write()
            if self._place.left <= GRACE:
                return "cut off: no time was left"
            allowed = self._allowed.get(self._entry, START * PATIENCE + self._unhurried)
            if time.monotonic() - self._since > allowed:
                return f"ended after {allowed} s"
            time.sleep(EVERY)
        return ""

    def _take(self) -> bool:
        """Note what was told since the last time; whether there was anything."""
        with self._lines.open("rb") as lines:
            lines.seek(self._read)
            found = lines.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in map(json.loads, whole.splitlines()):
            if line["entry"] != self._entry:
                self._entry, self._way, self._since = line["entry"], "", time.monotonic()
            self._way = line.get("begun", self._way)
            if "begun" not in line:
                self._record.take(line)
        return bool(whole)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"
