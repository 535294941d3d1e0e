"""How scripts end: one status for a kind of error, in the words of people; bugs go through."""

import pytest

from engines.precision import PrecisionError
from engines.spec import EngineError
from generators.contract import GeneratorError
from optimize.recipe import RecipeError
from pipeline.errors import DiskError, InputError, OutputError, ProgramKilled
from pipeline.exit_code import Exit
from pipeline.script import ending, say


class Own(RuntimeError):
    status = Exit.SIMILARITY


def ended(error, *arguments):
    def work():
        raise error

    return ending("a.py", work, *arguments)


@pytest.mark.parametrize(("error", "status", "words"), [
    (InputError("x"), Exit.INPUT, "x"), (OutputError("x"), Exit.USAGE, "x"),
    (DiskError("x"), Exit.EXHAUSTED, "x"), (ProgramKilled("x"), Exit.USAGE, "x"),
    (GeneratorError("{x}"), Exit.USAGE, "{x}"), (PrecisionError("x"), Exit.USAGE, "x"),
    (RecipeError("x"), Exit.USAGE, "x"), (EngineError("x"), Exit.ENVIRONMENT, "x"),
    (FloatingPointError("x"), Exit.ENVIRONMENT, "x"), (MemoryError("x"), Exit.EXHAUSTED, "out of memory: x"),
    (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted")], ids=lambda value: type(value).__name__)
def test_each_kind_of_error_has_its_status(error, status, words, capsys):
    assert ended(error) is status and capsys.readouterr().err == f"a.py: {words}\n"


def test_a_scripts_own_errors_come_first(capsys):
    own = {Own: None, OSError: Exit.USAGE, EngineError: Exit.INPUT}
    assert ended(Own("x"), own) is Exit.SIMILARITY and ended(EngineError("x"), own) is Exit.INPUT
    assert ended(OSError(28, "full"), own, "no") is Exit.USAGE
    assert capsys.readouterr().err.endswith("full; make room or choose another --out\n")
    assert ended(KeyboardInterrupt(), own, "finished ones are kept") is Exit.INTERRUPTED
    assert capsys.readouterr().err == "a.py: finished ones are kept\n"


def test_what_is_no_known_error_goes_through():
    for error in (ZeroDivisionError(), OSError(28, "full"), ValueError("x")):
        with pytest.raises(type(error)):
            ended(error)


def test_a_good_end_says_nothing(capsys):
    assert ending("a.py", lambda: Exit.SOME_FAILED) is Exit.SOME_FAILED and capsys.readouterr().err == ""


def test_words_go_to_stderr_with_or_without_bars(capsys):
    say("one")
    import tqdm  # noqa: F401 - as after a bar on a terminal
    say("two")
    assert capsys.readouterr() == ("", "one\ntwo\n")
