"""Parse the TOML of settings files, recipes and profiles, and refuse what TOML itself does not allow."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 2**63  # TOML's integers have 64 bits; Python's parser takes any, which no float or size can be


def parse_toml(text: str) -> dict:
    """Parse TOML. ValueError: it is not TOML, is nested too deeply, or has an integer beyond 64 bits."""
    try:
        found = tomllib.loads(text)
        _check(found, "")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def _check(value: object, key: str) -> None:
    """Raise ValueError for an integer beyond 64 bits, naming its key."""
    if isinstance(value, dict):
        for name, each in value.items():
            _check(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for each in value:
            _check(each, key)
    elif isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise ValueError(f"{key}: an integer must have at most 64 bits")
