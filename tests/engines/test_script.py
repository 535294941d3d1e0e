"""How scripts end: one status for a kind of error, in the words of people; bugs go through."""

import errno

import pytest

from engines.cli import ending, say
from engines.errors import (
    DiskError,
    EngineError,
    Exit,
    FolderError,
    InputError,
    OutputError,
    ProgramKilled,
    UsageError,
)
from engines.precision import PrecisionError
from generators.contract import GeneratorError
from pipeline.recipe import RecipeError


def ended(error, *arguments):
    def work():
        raise error

    return ending("a.py", work, *arguments)


@pytest.mark.parametrize(("error", "status", "words"), [
    (InputError("x"), Exit.INPUT, "x"), (OutputError("x"), Exit.EXHAUSTED, "x"),
    (FolderError("x"), Exit.USAGE, "x"), (DiskError("x"), Exit.EXHAUSTED, "x"),
    (ProgramKilled("x"), Exit.EXHAUSTED, "x"), (UsageError("x"), Exit.USAGE, "x"),
    (GeneratorError("{x}"), Exit.USAGE, "{x}"), (PrecisionError("x"), Exit.USAGE, "x"),
    (RecipeError("x"), Exit.USAGE, "x"), (EngineError("x"), Exit.ENVIRONMENT, "x"),
    (FloatingPointError("x"), Exit.ENVIRONMENT, "x"), (MemoryError("x"), Exit.EXHAUSTED, "out of memory: x"),
    (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted")], ids=lambda value: type(value).__name__)
def test_each_kind_of_error_has_its_status(error, status, words, capsys):
    assert ended(error) is status and capsys.readouterr().err == f"a.py: {words}\n"


def test_a_script_says_what_an_interruption_leaves(capsys):
    assert ended(KeyboardInterrupt(), "finished ones are kept") is Exit.INTERRUPTED
    assert capsys.readouterr().err == "a.py: finished ones are kept\n"


@pytest.mark.parametrize(("error", "status"), [
    (OSError(errno.ENOSPC, "No space left on device", "/x"), Exit.EXHAUSTED),
    (OSError(errno.EIO, "Input/output error"), Exit.EXHAUSTED),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), Exit.USAGE)], ids=str)
def test_a_disk_that_is_full_and_a_place_that_cannot_be_written_end_differently(error, status, capsys):
    assert ended(error) is status
    assert capsys.readouterr().err == f"a.py: {error}; make room or choose another --out\n"


def test_what_is_no_known_error_goes_through():
    for error in (ZeroDivisionError(), BrokenPipeError(32, "Broken pipe"), ValueError("x")):
        with pytest.raises(type(error)):
            ended(error)


def test_a_good_end_says_nothing(capsys):
    assert ending("a.py", lambda: Exit.SOME_FAILED) is Exit.SOME_FAILED and capsys.readouterr().err == ""


def test_words_go_to_stderr_with_or_without_bars(capsys):
    say("one")
    import tqdm  # noqa: F401 - as after a bar on a terminal
    say("two")
    assert capsys.readouterr() == ("", "one\ntwo\n")
