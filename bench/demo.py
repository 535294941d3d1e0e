"""Show the gain and prove it: sample videos by a recipe, one by the base model too, judged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.base_again import floor_of, seconds_of
from bench.report import metric
from engines.errors import Exit, VivaceError
from pipeline.batch.data_folder import list_requests
from pipeline.batch.dataset import first_requests
from pipeline.batch.run_folder import check_writable
from pipeline.recipe import load_recipe
from pipeline.video.reader import probe

ROOT = Path(__file__).resolve().parents[1]


class DemoError(VivaceError):
    """A script that failed; it has said why on stderr."""

    exit = Exit.ENVIRONMENT


def make_demo(
    generator: str, data: Path, recipe: Path, out: Path, say: Callable[[str], None]
) -> tuple[str, Exit]:
    """Make the videos of data/ by a recipe, the shortest by the base model too; judge them.

    The videos go to out/fast and out/base, the report to out/report. Return the table to show, and the
    judge's exit code. InputError: no pairs. FolderError: out cannot be written. DemoError.
    """
    check_writable(out)
    shortest = min(first_requests(data, say=say), key=lambda request: probe(request.video).frames)
    chosen = "--generator", generator
    say("1 of 4: graphs of the networks (kept for the next time)")
    _run("export_onnx.py", *chosen, "--precision", "fp32")
    say(f"2 of 4: all videos by {recipe.stem}")
    _run("infer.py", *chosen, "--data", data, "--recipe", recipe, "--out", out / "fast")
    say(f"3 of 4: {shortest.id} by the base model, for the ratio")
    list_requests([shortest], out / "one")
    _run("infer.py", *chosen, "--data", out / "one", "--out", out / "base")
    say("4 of 4: are they still the base model's videos?")
    report = out / "report"
    asked = "--data", data, "--candidate", out / "fast", "--base-again", out / "base", "--out", report
    judged = _run("-m", "bench", "judge", *asked, "--json", results=(Exit.SIMILARITY,))
    table = _table(json.loads(judged.stdout), load_recipe(recipe).name, shortest.id, out)
    where = f"videos: {out / 'fast'}   report, with the videos side by side: {report / 'index.html'}"
    return f"{table}\n\n{where}", Exit(judged.returncode)


def _run(*arguments: object, results: tuple[int, ...] = ()) -> subprocess.CompletedProcess:
    """Run a script of this checkout; its messages go to stderr. results: exit codes that are no failure."""
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    if ended.returncode not in (0, *results):
        raise DemoError(f"{arguments[0]} ended with status {ended.returncode}; what it says is above")
    return ended


def _table(found: dict, recipe: str, timed: str, out: Path) -> str:
    """Write what was found as a table of two rows: the base model and the recipe."""
    base, fast = seconds_of(out / "base")[timed], seconds_of(out / "fast")[timed]
    run, floor = found["runs"][0], floor_of(found)
    psnr = min(metric(run, "psnr"), default=None)
    verdict, alike = run["verdict"], sum(video["passes"] for video in run["videos"])
    of = f"{alike} of {len(run['videos'])} are the same video"
    lines = [
        ("run", f"seconds for {timed}", "times faster", "similarity", "PSNR, dB", "verdict"),
        ("base model", f"{base:.2f}", "1", "1", "", ""),
        (
            recipe,
            f"{fast:.2f}",
            f"{base / fast:.1f}",
            _figure(verdict["similarity"], 4),
            _figure(psnr, 1),
            of,
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    notes = ["similarity and PSNR are those of the worst video"]
    if floor:
        notes.append(f"the base model made again is {floor}: so much is rounding")
    return "\n".join([*rows, *verdict["reasons"], *notes])


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
