"""Files that only save time, and are read and written by several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read_cache(path: Path) -> bytes:
    """The file's bytes; none if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


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
