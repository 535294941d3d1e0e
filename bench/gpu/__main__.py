"""The process that measures, started by python -m bench gpu with the file of its task.

It tells what it finds line by line, as JSON, in a file: if it dies, what it told is kept, and the last line
says what it was doing.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from bench.gpu.plan import RECIPES, Entry
from pipeline.script import say


def main() -> int:
    """Measure what the task lists, one after another, as long as there is time."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with open(task["lines"], "a", encoding="utf-8") as lines:

        def emit(entry: str, line: dict) -> None:
            lines.write(json.dumps({"entry": entry, **line}) + "\n")
            lines.flush()

        for each in task["entries"]:
            entry = Entry(**each)
            if time.monotonic() + entry.seconds > task["deadline"]:
                say(f"{entry.name}: no time left for its {entry.seconds} s")
                continue
            say(f"{entry.name}: about {entry.seconds} s")
            _measure(entry, task, partial(emit, entry.name))
    return 0


def _measure(entry: Entry, task: dict, emit: partial) -> None:
    from bench.gpu.foreign import try_foreign
    from bench.gpu.kernels import profile_way
    from bench.gpu.machine import gpu_state
    from bench.gpu.measure import forget, measure
    from bench.gpu.recipes import measure_recipes
    from bench.gpu.ways import Place

    place = Place(task["device"], Path(task["folder"]), task["tiny"])
    started = time.monotonic()
    emit({"status": "begun", "kind": entry.kind, "at": round(started), "gpu_before": gpu_state()})
    if entry.kind == "network":
        measure(entry.subject, entry.ways, place, emit)
    elif entry.kind == "recipes":
        measure_recipes(entry.ways, RECIPES, place, emit)
    elif entry.kind == "foreign":
        try_foreign(entry.ways, place, emit)
    else:
        profile_way(entry.subject, entry.ways[0], place, emit)
    forget()
    emit({"status": "done", "took": round(time.monotonic() - started, 1), "gpu_after": gpu_state()})


if __name__ == "__main__":
    sys.exit(main())
