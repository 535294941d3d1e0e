"""What goes wrong with rivals."""

from __future__ import annotations

from engines.errors import UsageError


class RivalError(UsageError):
    """A rival cannot be used so; the text says why and what to do."""
