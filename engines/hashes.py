"""Hashes of files; those of large ones are remembered from run to run, as hashing 28 GB takes a minute."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from engines.files import atomic_write
from engines.start_times import timed

VERIFY = "VIVACE_VERIFY"  # set to anything: every file is read again
# The folder of what only saves time; left out, vivace in the user's caches; empty, nothing is remembered.
CACHE = "VIVACE_CACHE"
LARGE = 1 << 20  # bytes; smaller files are read again each time
SETTLED = 2.0  # seconds since a file's change, below which another change might show the same time


def file_sha256(path: Path) -> str:
    """Hash a file's bytes by SHA-256, in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def known_sha256(path: Path) -> str:
    """Return the hash of a file, remembered while its size, its inode and both its times are the same.

    That of its change (ctime) is the system's own: a copy that keeps dates, or an archive's, does not.
    """
    at = path.stat()
    with timed("hash"):
        return _known(str(path.resolve()), at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino)


@functools.cache
def _known(path: str, size: int, modified: int, changed: int, inode: int) -> str:
    memory = _folder() / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    file = [path, size, modified, changed, inode]
    is_remembered = size >= LARGE and os.environ.get(CACHE) != ""
    if is_remembered and not os.environ.get(VERIFY):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(memory.read_text())
            if found["file"] == file:
                return str(found["sha256"])
    digest = file_sha256(Path(path))
    if is_remembered and time.time() - max(modified, changed) / 1e9 > SETTLED:
        with suppress(OSError), atomic_write(memory) as draft:  # it only saves time
            draft.write_text(json.dumps({"file": file, "sha256": digest}))
    return digest


def _folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or f"{caches}/vivace") / "sha256"
