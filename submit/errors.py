"""The one failure of this room that is not a bug: what was asked for cannot be packed or checked."""

from __future__ import annotations

from pipeline.exit_code import Exit


class SubmitError(RuntimeError):
    """The text says what is wrong and what to do; status is how a script should end."""

    def __init__(self, text: str, status: Exit = Exit.USAGE) -> None:
        super().__init__(text)
        self.status = status
