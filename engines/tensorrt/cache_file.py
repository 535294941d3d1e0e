"""Files that only save time: a reader sees a whole one or none, and two writers do not spoil it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read_cache(path: Path) -> bytes:
    """The file's bytes; none if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def replace_cache(path: Path, data: bytes) -> None:
    """Put data in the file's place at once. OSError leaves the old file."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among processes that lock the same path, as long as inside.

    Windows has no flock: there the later of two writers wins, and the other's timings are measured again.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
