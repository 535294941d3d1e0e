"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from engines.errors import OutputError
from engines.files import atomic_write


def write_whole(path: Path, data: bytes) -> None:
    """Write data to path. OutputError leaves nothing behind."""
    try:
        with atomic_write(path) as draft:
            draft.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Check disk and folder.") from error
