"""What to say of a name that is not known: the known one that was probably meant, or all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence on a name that is none of the known ones; what says of what, as "precision"."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"
