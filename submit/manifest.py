"""submission.json, as the checks read it: it may come from anywhere, so nothing in it is taken on trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.errors import InputError
from generators.contract import BUNDLED
from pipeline.submission import FILE


@dataclass(frozen=True)
class Manifest:
    """files: SHA-256 by name. licences by package. entry: infer.py's defaults."""

    files: Mapping[str, str]
    licences: Mapping[str, str]
    entry: Mapping
    components: list[str]
    generator_name: str

    @property
    def generator(self) -> str | None:
        """The file of a generator that does not come with Vivace."""
        name = self.entry["generator"]
        return None if name in BUNDLED else name.rpartition(":")[0]

    @property
    def folder(self) -> str:
        """Where its built files are."""
        return f"engines/built/{Path(self.generator_name).name}"


def read_manifest(folder: Path) -> Manifest:
    """Of an unpacked archive. InputError if it has none, or not one that pack writes."""
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(
            {str(name): str(sha256) for name, sha256 in found["files"].items()},
            {str(name): str(text) for name, text in found["licences"].items()},
            dict(found["entry"]),
            [str(name) for name in found["components"]],
            str(found["generator"]),
        )
        if not isinstance(manifest.entry["generator"], str):
            raise ValueError("entry.generator is no text")
    except FileNotFoundError as error:
        raise InputError(f"{FILE} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{FILE} is not one that `python -m submit pack` writes ({error!r})") from error
    return manifest
