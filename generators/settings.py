"""Read the settings of a generator made from a folder: its vivace.toml, into a frozen dataclass."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from engines.errors import unknown
from engines.toml_file import parse_toml
from generators.contract import GeneratorError

FILE = "vivace.toml"
T = TypeVar("T")


def read_settings(folder: Path, kind: type[T]) -> T:
    """Read FOLDER/vivace.toml into the dataclass; what the file leaves out, or no file, means defaults.

    GeneratorError: no such folder, no TOML, an unknown setting, one of another type than its default, or what
    the dataclass itself refuses with a ValueError.
    """
    if not folder.is_dir():
        raise GeneratorError(f"no folder {folder}; give the one that holds the checkpoint")
    path, defaults = folder / FILE, {field.name: field.default for field in fields(kind)}
    if not path.is_file():
        return kind()
    try:
        found = parse_toml(path.read_text(encoding="utf-8-sig"))
        for name, value in found.items():
            if name not in defaults:
                raise ValueError(unknown("setting", name, defaults))
            wanted = (int, float) if type(defaults[name]) is float else (type(defaults[name]),)
            if type(value) not in wanted:
                raise ValueError(f"{name}: must be like {defaults[name]!r}, is {value!r}")
        return kind(**found)
    except ValueError as error:  # not UTF-8 and not TOML are ValueErrors too
        raise GeneratorError(f"{path}: {error}") from error
