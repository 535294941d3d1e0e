"""Read what decides a generator made from a folder: its vivace.toml, and the networks' config files."""

from __future__ import annotations

import json
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


def read_config(path: Path, layout: str = "") -> dict:
    """Read a network's config.json; layout: what is said of the folder where the file cannot be read.

    GeneratorError: no file that can be read, no JSON, or JSON that is no object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GeneratorError(f"{path}: {error.strerror}" + (f"; {layout}" if layout else "")) from error
    except ValueError as error:
        raise GeneratorError(f"{path} is no JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise GeneratorError(f"{path} holds no settings but {type(config).__name__}; expected an object")
    return config
