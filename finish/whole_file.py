"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import OutputError


def write_whole(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, then rename. OutputError leaves nothing behind."""
    draft = path.with_name(f".{path.name[:40]}.tmp-{os.getpid()}")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Check disk and folder.") from error
    finally:
        draft.unlink(missing_ok=True)
