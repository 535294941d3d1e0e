"""Hold the one error of this room: what was asked for cannot be packed or checked."""

from __future__ import annotations

from engines.errors import Exit, VivaceError


class SubmitError(VivaceError):
    """An error that is no bug: the text says what is wrong and what to do, exit is how a script ends."""

    def __init__(self, text: str, exit: Exit = Exit.USAGE) -> None:
        super().__init__(text)
        self.exit = exit
