"""What goes wrong with rivals."""

from __future__ import annotations


class RivalError(ValueError):
    """A rival cannot be used so; the text says why and what to do."""
