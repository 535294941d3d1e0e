"""Run the tests that need a GPU, and say what became of them."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from bench.gpu.measuring import ROOT, Workplace

SECONDS = 300  # an estimate
WORDS = 400  # characters of a reason


def run_tests(place: Workplace) -> dict:
    """How many passed, failed and were skipped, why by name, and pytest's status, or that time ran out."""
    report, log = place.folder / "tests.xml", place.folder / "tests.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", f"--junitxml={report}"]
    command += ["-p", "no:cacheprovider", "-o", "junit_logging=no"]
    with log.open("wb") as said:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=place.environment(), stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, timeout=max(1.0, place.left),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"status": "cut off: no time was left", "log": tail(log)}
    if not report.is_file():
        return {"status": f"pytest ended with status {done.returncode}", "log": tail(log)}
    return {"status": done.returncode, **outcomes(report)}


def outcomes(report: Path) -> dict:
    """Counts, and the reason of each test that did not pass, of a JUnit XML file."""
    counts, reasons = Counter(), {}
    for case in ElementTree.parse(report).iter("testcase"):
        found = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        kind = {"failure": "failed", "error": "failed", "skipped": "skipped"}.get(getattr(found, "tag", ""))
        counts[kind or "passed"] += 1
        if found is not None:
            reasons[case.get("name")] = " ".join((found.get("message") or "").split())[:WORDS]
    return {**counts, "reasons": reasons}


def tail(log: Path) -> list[str]:
    """The last lines of a log."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
