"""Many requests, one after the other: a bad one is recorded and the others are still made."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from generators.contract import Engines, Generator
from optimize.recipe import BASELINE, Recipe
from pipeline.data import Pairing, Request
from pipeline.errors import InputError, OutputError
from pipeline.exit_code import Exit
from pipeline.progress import Progress
from pipeline.request import make_video

MANIFEST = "manifest.jsonl"
FAILURES = {InputError: Exit.INPUT, OutputError: Exit.EXHAUSTED, MemoryError: Exit.EXHAUSTED}


@dataclass(frozen=True)
class Run:
    """Where a run writes and with what; ran_with goes into every manifest line.

    generator: as recipe.adapt() has it. lossless: files keep every RGB value, which few players show.
    """

    out: Path
    generator: Generator
    engines: Engines
    say: Callable[[str], None]
    recipe: Recipe = BASELINE
    ran_with: Mapping[str, object] = field(default_factory=dict)
    lossless: bool = False


def check_writable(out: Path) -> None:
    """Make the output folder and prove that files can be made in it, before costly work; else OutputError."""
    probe = out / f".writable-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to the output folder {out}: {error.strerror}; choose another --out"
        ) from error


def run_all(pairing: Pairing, run: Run) -> tuple[list[dict], Exit]:
    """Make every video of a pairing as OUT/<id>.mp4; returns the lines it appends to OUT/manifest.jsonl.

    Exit.SOME_FAILED if some were made and some not; if none was, the reason they share, else SOME_FAILED.
    """
    lines, reasons = [], []
    for name, reason in pairing.unpaired.items():
        lines.append(_record(run, {"id": name, "status": "failed", "error": reason}))
        reasons.append(Exit.INPUT)
    for number, request in enumerate(pairing.requests, 1):
        label = f"[{number}/{len(pairing.requests)}] {request.id}"
        line, reason = _one(request, run, label)
        lines.append(_record(run, line))
        reasons.append(reason)
    distinct = set(reasons)
    return lines, reasons[0] if len(distinct) == 1 else Exit.SOME_FAILED


def _one(request: Request, run: Run, label: str) -> tuple[dict, Exit]:
    output = run.out / f"{request.id}.mp4"
    line = {
        "id": request.id,
        "video": str(request.video),
        "image": str(request.image),
        "seed": request.seed,
        "generator": run.generator.name,
        "recipe": run.recipe.name,
        **run.ran_with,
    }
    try:
        made = make_video(
            request, output, run.generator, run.engines, lambda total: Progress(label, total), run.recipe,
            run.lossless,
        )  # fmt: skip
    except tuple(FAILURES) as error:
        text = str(error) or type(error).__name__
        status = next(status for kind, status in FAILURES.items() if isinstance(error, kind))
        return {**line, "status": "failed", "error": text}, status
    run.say(f"{label}: {output} ({made['frames']} frames, {made['total_seconds']:.1f} s)")
    for note in made["notes"]:
        run.say(f"{label}: note: {note}")
    return {**line, "status": "done", "output": str(output), **made}, Exit.OK


def _record(run: Run, line: dict) -> dict:
    if line["status"] == "failed":
        run.say(f"{line['id']}: failed: {line['error']}")
    line = {**line, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    # A file name that is no text has bytes that UTF-8 cannot hold; as \udcff they still make valid JSON.
    with (run.out / MANIFEST).open("a", encoding="utf-8", errors="backslashreplace") as manifest:
        manifest.write(json.dumps(line, ensure_ascii=False) + "\n")
    return line
