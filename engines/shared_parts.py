"""Networks that components have in common: those that start together get the same one, its weights once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Part = TypeVar("Part")
_parts: ContextVar[dict[Hashable, object] | None] = ContextVar("parts", default=None)


@contextmanager
def sharing(parts: dict[Hashable, object]) -> Iterator[None]:
    """Have `shared` in the block look into these parts, and put there what it loads."""
    before = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(before)


def shared(key: Hashable, load: Callable[[], Part]) -> Part:
    """Return the part of that key, which is loaded if it is the first to be asked for.

    Outside a `sharing` block it is always loaded: who exports a network may change it.
    """
    parts = _parts.get()
    if parts is None:
        return load()
    if key not in parts:
        parts[key] = load()
    return parts[key]
