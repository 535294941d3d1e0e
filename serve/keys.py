"""API keys: the file of their names and hashes, and whose key a request carries.

A key is 256 random bits, so a plain SHA-256 of it cannot be turned back; the key itself is nowhere kept.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from engines.errors import UsageError
from serve.errors import ApiError

LOCAL = "local"  # who asks where no keys are needed
LINE = re.compile(r"([\w.-]{1,64}):([0-9a-f]{64})")


def load_keys(path: Path | None) -> Mapping[str, str]:
    """Return the hashes of keys by the names of their owners. UsageError: the file cannot be used."""
    if path is None:
        return {}
    found = _read(path)
    if not found:
        raise UsageError(f"--keys {path}: holds no key; --add-key NAME adds one")
    return found


def _read(path: Path) -> dict[str, str]:
    """Read a file of keys, which may hold none. UsageError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--keys {path}: cannot be read ({error}); --add-key NAME begins one") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if not match or match[1] in found:
            raise UsageError(
                f"--keys {path}, line {number}: is not NAME:SHA256, or NAME is there twice; "
                "remove it, and let --add-key NAME write a line"
            )
        found[match[1]] = match[2]
    return found


def add_key(path: Path, name: str) -> str:
    """Make a key for a name, add its hash to the file, which only its owner can read, and return the key."""
    if name == LOCAL or not LINE.fullmatch(f"{name}:{'0' * 64}"):
        raise UsageError(f"--add-key {name!r}: cannot be a name; use letters, digits, dot, - and _")
    known = path.read_bytes() if path.exists() else b""
    if known and name in _read(path):
        raise UsageError(
            f"--add-key {name}: has a key in {path}; remove its line first, or take another name"
        )
    key = f"viv-{secrets.token_urlsafe(32)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        begun = "\n" if known and not known.endswith(b"\n") else ""  # an editor left the last line without
        file.write(f"{begun}{name}:{_hashed(key)}\n")
    return key


def owner_of(keys: Mapping[str, str], authorization: str) -> str:
    """Return whose key is in an Authorization header. ApiError: 401."""
    if not keys:
        return LOCAL
    kind, _, key = authorization.partition(" ")
    asked, owner = _hashed(key.strip()), None
    for name, known in keys.items():  # all of them, so that the time says nothing about which
        if hmac.compare_digest(asked, known):
            owner = name
    if kind.lower() != "bearer" or owner is None:
        told = "Send a valid key, as Authorization: Bearer KEY."
        raise ApiError(401, "unauthorized", told, {"WWW-Authenticate": "Bearer"})
    return owner


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
