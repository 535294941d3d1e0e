"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".new-"  # what the names of folders with drafts begin with


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A draft beside path to write to, which takes its place at once after the block, or goes if that raises.

    The folder is made if it is not there. OSError if one cannot write there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=path.parent) as staging:
        draft = Path(staging) / path.name
        yield draft
        os.replace(draft, path)
