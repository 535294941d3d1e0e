"""Read the lines of a requirements file in pip's order, and refuse what another pip could read otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator

# As in pip's own _internal/req/req_file.py and utils/encoding.py.
COMMENT = re.compile(r"(^|\s+)#.*$")
CODING = re.compile(r"coding[:=]\s*[-\w.]")


def requirement_lines(text: str) -> list[str]:
    """The lines that pip installs from: continuations joined, then comments cut off; blank ones are left out.

    As in pip, a # begins a comment at a line's start and after white space, and a line that is all comment
    never goes on in the next one.
    """
    joined, begun = [], ""
    for line in text.splitlines():
        comment = COMMENT.match(line) is not None
        if line.endswith("\\") and not comment:
            begun += line.strip("\\")
            continue
        joined.append(begun + (f" {line}" if comment else line))
        begun = ""
    return [line for each in [*joined, begun] if (line := COMMENT.sub("", each).strip())]


def misleading(text: str) -> Iterator[str]:
    """Yield where programs disagree on what a requirements file says; none that pack writes has such lines.

    pip takes an encoding from a comment in one of the first two lines, and else the locale's.
    """
    for number, line in enumerate(text.splitlines(), 1):
        comment = COMMENT.search(line)
        if comment and line.rstrip().endswith("\\"):
            yield f"line {number} is a comment that ends in a backslash: does the next line belong to it?"
        if CODING.search(line):
            yield f"line {number} names an encoding, by which pip would read the file: {line[:60]!r}"
        if not line.isascii():
            yield f"line {number} is not ASCII, so that what pip reads depends on the machine: {line[:60]!r}"
