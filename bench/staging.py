"""The hidden folder in which recipes are timed, and how what was made in it gets to its place, or goes."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.timed_run import LOG
from engines.errors import FolderError
from pipeline.batch.run_folder import MANIFEST

PREFIX = ".timing-"


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A hidden folder in out that is gone after the block; those go too that killed processes have left.

    The owner's process id is in its name, so all that write to the same out must be of one machine.
    """
    for folder in out.glob(f"{PREFIX}*"):
        owner = re.match(rf"{re.escape(PREFIX)}([1-9]\d{{0,8}})-", folder.name)
        if owner and not _is_another(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)
    prefix = f"{PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def check_replaceable(folder: Path) -> None:
    """FolderError if there is something of that name that an earlier timing did not put there."""
    if not os.path.lexists(folder):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    ours = {MANIFEST, LOG} <= names
    known = (MANIFEST, LOG, f"{folder.name}.toml")
    if not ours or not all(name in known or name.endswith(".mp4") for name in names):
        raise FolderError(f"{folder} is there and was not made by timing a recipe; choose another --out")


def keep(made: Path, lines: Iterable[dict], target: Path) -> None:
    """Move a recipe's folder to its place, which its manifest and its log then name; an older one goes.

    lines: of the manifest, which also names the recipe from now on: by the place's name.
    """

    def placed(value: object) -> object:
        return value.replace(str(made), str(target)) if isinstance(value, str) else value

    texts = []
    for line in lines:
        line = {key: placed(value) for key, value in line.items()}
        texts.append(json.dumps({**line, "recipe": target.name}, ensure_ascii=False))
    (made / MANIFEST).write_text("\n".join(texts) + "\n", encoding="utf-8", errors="backslashreplace")
    # As infer.py's stderr is told to write what is no text in a path.
    names = [str(path).encode("utf-8", "backslashreplace") for path in (made, target)]
    (made / LOG).write_bytes((made / LOG).read_bytes().replace(*names))
    if target.exists():
        os.replace(target, made.with_name(f"{made.name} before"))
    os.replace(made, target)


def _is_another(process: int) -> bool:
    """Whether a process of that number lives and is not this one: in a container numbers come again."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True
