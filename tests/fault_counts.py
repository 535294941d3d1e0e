"""How often a fault is tried, and the figures that come of it.

$VIVACE_FAULTS=full: as often as docs/faults.md says; else a few times, for every run of the tests.
"""

import os
import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "faults.md"
FIGURES = []


def times(few, full):
    """How often."""
    return full if os.environ.get("VIVACE_FAULTS") == "full" else few


def figure(text):
    """To be printed at the end of the tests."""
    FIGURES.append(text)


def rows():
    """By fault, the tests that docs/faults.md names, as file::test."""
    found = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| F\d\d ", line):
            found[line[2:5]] = re.findall(r"`(test_\w+\.py::test_\w+)`", line)
    return found
