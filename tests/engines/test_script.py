"""How scripts end: one status for a kind of error, in the words of people; bugs go through."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engines.cli import common_arguments, ending, new_parser, say
from engines.errors import (
    DiskError,
    EngineError,
    Exit,
    FolderError,
    InputError,
    OutputError,
    ProgramKilled,
    UsageError,
    reading,
)
from engines.files import append_line
from engines.precision import PrecisionError
from generators.contract import GeneratorError
from pipeline.recipe import RecipeError

ROOT = Path(__file__).resolve().parents[2]


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
    (OSError(errno.EFBIG, "File too large"), Exit.EXHAUSTED),
    (OSError(errno.EROFS, "Read-only file system", "/x"), Exit.USAGE),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), Exit.USAGE)], ids=str)
def test_a_disk_that_is_full_and_a_place_that_cannot_be_written_end_differently(error, status, capsys):
    assert ended(error) is status
    what = "check its permissions, or" if isinstance(error, PermissionError) else "make room or"
    assert capsys.readouterr().err == f"a.py: {error}; {what} choose another --out\n"


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


def program(*lines):
    """A script of its own, with these lines for its work."""
    head = ["import sys", "from engines.cli import ending, run, say, show", "from engines.errors import Exit"]
    body = ["def work():", *(f"    {line}" for line in lines), "    return Exit.OK"]
    text = "\n".join([*head, *body, "run(lambda: ending('a.py', work))"])
    return [sys.executable, "-c", text]


def test_a_reader_that_has_enough_ends_a_script_quietly():
    with subprocess.Popen(program("for n in range(100_000): show({'n': n})"), cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == '{"n": 0}\n'
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", Exit.INTERRUPTED)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_names_that_are_no_text_end_no_script_and_leave_its_lines_json(encoding):
    lines = r"show({'video': '\udccb 孙.mp4'})", r"print('\udccb 孙.mp4')", r"tell('\udccb')"
    command = program("from engines.cli import tell", *lines)
    found = subprocess.run(command, cwd=ROOT, capture_output=True, env={
        **os.environ, "PYTHONIOENCODING": encoding})
    assert found.returncode == 0, found.stderr
    shown, *printed = found.stdout.decode("utf-8", "surrogateescape").splitlines()
    assert json.loads(shown) == {"video": "\udccb 孙.mp4"} and shown.isprintable()
    name = "\udccb" if "escape" in encoding else "\\udccb"
    assert printed == [f"{name} 孙.mp4", name]


def test_a_record_takes_a_name_that_is_no_text(tmp_path):
    for name in ("\udccb", "孙"):
        append_line(tmp_path / "record.jsonl", json.dumps({"id": name}, ensure_ascii=False))
    lines = (tmp_path / "record.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[1] == '{"id": "孙"}' and [json.loads(line)["id"] for line in lines] == ["\udccb", "孙"]


def test_messages_that_nobody_reads_are_no_reason_to_end():
    lines = "sys.stdin.readline()", "for n in range(9): say('x' * 9999)", "show({'n': 1})"
    with subprocess.Popen(program(*lines), cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        process.stderr.close()
        process.stderr = None
        assert process.communicate("\n")[0] == '{"n": 1}\n' and process.returncode == 0


def test_closed_standard_files_lend_their_numbers_to_no_other_file(tmp_path):
    lines = (f"file = open({str(tmp_path / 'mine')!r}, 'w')", "say('hello')", "show({'n': 1})",
             "print('hello', file=sys.stderr)", "file.write(str(file.fileno() > 2))")
    shell = 'exec "$@" 1>&- 2>&-'
    assert subprocess.run(["sh", "-c", shell, "sh", *program(*lines)], cwd=ROOT).returncode == 0
    assert (tmp_path / "mine").read_text() == "True"


@pytest.mark.parametrize("text", ["", "  ", "a\0b"])
def test_an_empty_folder_is_not_the_working_folder(capsys, text):
    parser = new_parser("about")
    common_arguments(parser, "out", "data")
    for option in ("--out", "--data"):
        with pytest.raises(SystemExit):
            parser.parse_args([option, text])
        assert "is empty; give a folder, or . for the working folder" in capsys.readouterr().err
    assert parser.parse_args(["--out", "."]).out == Path(".")


def test_no_script_takes_an_empty_place_to_write_to():
    option = re.compile(r'add_argument\(\s*"--(?:out|report|run|work)",[^)]*type=(\w+)')
    kinds = {f"{path.relative_to(ROOT)}: {kind}" for path in ROOT.glob("[!.]*/**/*.py")
             if path.parts[len(ROOT.parts)] != "tests" for kind in option.findall(path.read_text("utf-8"))}
    assert len(kinds) > 8 and {each.partition(": ")[2] for each in kinds} == {"folder"}, kinds


@pytest.mark.parametrize("error", [
    ZeroDivisionError(), NotImplementedError("x"), KeyError("x"), OSError("cut short"),
    PermissionError(errno.EACCES, "Permission denied", "in.mp4")], ids=repr)
def test_whatever_a_decoder_raises_is_an_error_of_its_file(error):
    denied = isinstance(error, PermissionError)
    words = r"Permission denied\). Check permissions" if denied else rf"{type(error).__name__}.*Make the file"
    words = rf"in.mp4: cannot be read \({words}"
    with pytest.raises(InputError, match=words), reading(Path("in.mp4")):
        raise error


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EMFILE, "Too many open files", "in.mp4"),
    FileNotFoundError(errno.ENOENT, "No such file", "/bin/ffmpeg"), MemoryError(), DiskError("x"),
    KeyboardInterrupt()], ids=repr)
def test_what_the_machine_lacks_is_not_blamed_on_a_file(error):
    with pytest.raises(type(error)) as raised, reading(Path("in.mp4")):
        raise error
    assert raised.value is error
