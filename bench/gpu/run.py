"""The stages of a run on a GPU machine, within a limit of time, each going on where it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench.gpu.install import install
from bench.gpu.machine import file_name, gpu_state
from bench.gpu.measuring import ROOT, Workplace, measure_entries
from bench.gpu.plan import ENTRIES, Entry, planned
from bench.gpu.record import Record
from bench.gpu.tests_there import SECONDS, run_tests
from engines.doctor import PACKAGES, processor
from engines.spec import EngineError

STAGES = ("install", "tests", "measure", "profile")
RESULTS = ROOT / "bench" / "results"
PROFILED, PROFILE_SECONDS = 3, 40
REHEARSAL = "rehearsal"


@dataclass(frozen=True)
class Order:
    """What is asked for: stages in their order; folders for what is made on the way, results and wheels.

    limit: seconds in which it must have ended; None: as long as it takes. rehearsal: on the processor, tiny.
    """

    stages: Sequence[str]
    work: Path
    results: Path
    wheels: Path | None
    limit: float | None
    rehearsal: bool


def run_stages(order: Order, say: Callable[[str], None]) -> Path:
    """Run the stages; the file of results. What did not fit into the limit is done by the same call again.

    EngineError: there is no GPU and it is no rehearsal.
    """
    gpu = gpu_state()
    if gpu is None and not order.rehearsal:
        raise EngineError(
            "no GPU: nvidia-smi is not here or shows none; --dry-run rehearses on the processor"
        )
    limit = time.monotonic() + (order.limit or 10 * 86400)
    place = Workplace(order.work.resolve(), "cpu" if order.rehearsal else "cuda", order.rehearsal, limit)
    name = REHEARSAL if order.rehearsal else file_name(gpu["name"])
    record = Record(name, [place.folder, order.results], RESULTS / f"{name}.json")
    record.data["machine"] = {"gpu": gpu, "processor": processor(), "cores": os.cpu_count()}
    for stage in order.stages:
        say(f"stage {stage}, {place.left:.0f} s left" if order.limit else f"stage {stage}")
        {"install": _install, "tests": _tests, "measure": _measure, "profile": _profile}[stage](
            order, place, record, say
        )
        record.data["machine"]["versions"] = _versions(place)
        record.write()
    return record.paths[-1]


def _install(order: Order, place: Workplace, record: Record, say: Callable[[str], None]) -> None:
    if order.wheels is None:
        say("no --wheels: what is installed is used as it is")
        return
    record.data["installed"] = found = install(order.wheels, place.folder, say)
    for wheel, state in found.items():
        if state != "installed":
            say(f"{wheel} {state}; bring the other loads")


def _tests(order: Order, place: Workplace, record: Record, say: Callable[[str], None]) -> None:
    if record.data.get("tests", {}).get("status") == 0:
        say("the tests have passed before")
    elif place.left < (1 if order.rehearsal else SECONDS):
        say(f"no time left for the tests, which take about {SECONDS} s")
    else:
        record.data["tests"] = found = run_tests(place)
        say(", ".join(f"{value} {name}" for name, value in found.items() if name not in ("reasons", "log")))


def _measure(order: Order, place: Workplace, record: Record, say: Callable[[str], None]) -> None:
    left = measure_entries(planned(order.rehearsal), place, record, say)
    if left:
        say(f"left, run the same again: {', '.join(left)}")


def _profile(order: Order, place: Workplace, record: Record, say: Callable[[str], None]) -> None:
    left = measure_entries(slowest(record.data["entries"]), place, record, say)
    if left:
        say(f"left, run the same again: {', '.join(left)}")


def slowest(entries: dict) -> list[Entry]:
    """An entry to profile for each of the networks furthest from their floor, in its fastest way."""
    best: dict[str, tuple[float, str]] = {}
    subjects = {entry.name: entry.subject for entry in ENTRIES if entry.kind == "network"}
    for name, entry in entries.items():
        for way, row in entry["ways"].items():
            alone = not {"plain", "engine", "onnxruntime"} & set(way.partition(":")[0].split("+"))
            if name in subjects and alone and row.get("to_floor"):
                found = (row["to_floor"], way)
                best[subjects[name]] = min(found, best.get(subjects[name], found))
    ranked = sorted(best.items(), key=lambda item: item[1], reverse=True)[:PROFILED]
    return [
        Entry(f"profile of {subject}", "profile", (way,), PROFILE_SECONDS, subject)
        for subject, (_, way) in ranked
    ]


def _versions(place: Workplace) -> dict[str, str]:
    """Of what the measuring process has: what was brought comes before what is installed."""
    found: dict[str, str] = {}
    for dist in (*metadata.distributions(path=[str(place.folder / "site")]), *metadata.distributions()):
        found.setdefault((dist.metadata["Name"] or "").replace("_", "-"), dist.version)
    return {name: found[name] for name in (*PACKAGES, "diffusers", "triton", "transformers") if name in found}
