"""What the scripts' exit status means; the same table for every script."""

from enum import IntEnum


class Exit(IntEnum):
    """One status per kind of failure, so that a caller can react without reading text."""

    OK = 0
    BUG = 1
    USAGE = 2
    INPUT = 3
    ENVIRONMENT = 4
    SIMILARITY = 5
    TIME = 6
    SOME_FAILED = 7
    EXHAUSTED = 8
    INTERRUPTED = 130
    TERMINATED = 143
