"""Turn comparisons and times into one verdict for each run, and a report of all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from bench.checks import NEED_SKELETON
from bench.judge import reasons, similarity
from bench.score import GATE, score
from bench.timing import result_kept
from engines.doctor import examine
from engines.errors import Exit

SCHEMA = 1
MACHINE = ("system", "python", "processor", "cores", "cpus", "load_average", "packages")
FROM_TIMING = ("recipe", "backend", "built", "nondeterministic", "guard_fired", "notes", "failed")
FROM_TIMING += ("speed_unknown",)
MOST_SHOWN = 8  # names of videos in a remark


@dataclass(frozen=True)
class Question:
    """The question of a report: data and reference folders, extractors, seconds allowed a video, rounds.

    load: the machine's load averages over 1, 5 and 15 minutes before its own work; empty if not looked at.
    beside: folders of the same videos made with another seed, or by the base again (bench/beside.py).
    """

    data: Path
    reference: Path
    extractors: list[str]
    threshold: float | None = None
    rounds: int | None = None
    load: tuple[float, ...] = ()
    beside: Mapping[str, Path] = field(default_factory=dict)


def run_entry(
    name: str, folder: Path, comparisons: list[dict], question: Question, measured: Mapping | None = None
) -> dict:
    """Return a run's part of the report. measured: its entry of time_recipes, None for finished videos.

    gate_held is the contest's own question. alike asks for all checks too, and that no result was kept from
    one request for the next. in_time: the script's seconds divided by videos are below the threshold, if any.
    bad_input: not alike for no other reason than a reference or a skeleton video that cannot be read.
    """
    timing = (measured or {}).get("timing")
    seconds = timing["contest_seconds"] if timing else None
    alike, found = all(each["passes"] for each in comparisons), similarity(comparisons)
    texts, in_time = reasons(comparisons), True
    bad_input = not alike and all(each["passes"] or each.get("bad_input") for each in comparisons)
    if timing and result_kept(timing["repeat_ratio"], timing["repeat_saved"]):
        alike = bad_input = False
        texts.append(f"a request made again took {timing['repeat_ratio']:.2f} of its time: results are kept")
    if seconds is not None and question.threshold is not None and seconds > question.threshold:
        in_time = False
        texts.append(f"{seconds:.2f} s a video, allowed are {question.threshold:g}")
    gate_held = found is not None and GATE[0] <= found <= GATE[1]
    points = None
    if seconds is not None and question.threshold is not None:
        points = round(score(seconds, question.threshold, gate_held), 2)
    return {
        "name": name,
        "folder": str(folder),
        **{key: (measured or {}).get(key) for key in FROM_TIMING},
        "verdict": {
            "passes": alike and in_time,
            "alike": alike,
            "bad_input": bad_input,
            "gate_held": gate_held,
            "in_time": in_time,
            "similarity": found,
            "speed_ratio": (measured or {}).get("speed_ratio"),
            "score": points,
            "reasons": texts,
        },
        "timing": timing,
        "remarks": [*_left_out(comparisons), *filter(None, [(measured or {}).get("speed_unknown")])],
        "videos": comparisons,
    }


def _left_out(comparisons: list[dict]) -> Iterator[str]:
    """Say which videos were judged without their skeleton, and so by fewer checks."""
    names = [each["id"] for each in comparisons if each.get("unchecked")]
    if names:
        more = [f"and {len(names) - MOST_SHOWN} more"] if len(names) > MOST_SHOWN else []
        shown = ", ".join(names[:MOST_SHOWN] + more)
        yield (
            f"judged without a skeleton video, as --data has none of that name: {shown}. These checks were "
            f"left out: {', '.join(NEED_SKELETON)}. So the verdict says nothing of hands, of the face and of "
            "whether the skeleton is followed, and no level is given, as a level asks for all checks"
        )


def make_report(
    runs: list[dict], question: Question, baseline: str | None = None, noise_floor: float | None = None
) -> dict:
    """Return the whole report, for bench/report.py to write."""
    machine = examine() | {"load_average": [round(load, 2) for load in question.load]}
    return {
        "schema": SCHEMA,
        "what": "python -m bench",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "data": str(question.data),
        "reference": str(question.reference),
        "machine": {key: machine[key] for key in MACHINE},
        "settings": {
            "gate": list(GATE),
            "time_threshold": question.threshold,
            "extractors": question.extractors,
            "rounds": question.rounds,
            "beside": {name: str(folder) for name, folder in question.beside.items()},
        },
        "baseline": baseline,
        "noise_floor": noise_floor if noise_floor is None or math.isfinite(noise_floor) else None,
        "runs": runs,
    }


def exit_status(runs: list[dict]) -> Exit:
    """Return 5 if a run's videos are not the base model's any more, else 6 if one is too slow, else 0.

    3 stands for 5 where nothing but a reference or a skeleton video that cannot be read is in the way.
    """
    unlike = [run["verdict"] for run in runs if not run["verdict"]["alike"]]
    if unlike:
        return Exit.INPUT if all(each.get("bad_input") for each in unlike) else Exit.SIMILARITY
    return Exit.OK if all(run["verdict"]["in_time"] for run in runs) else Exit.TIME
