"""Requirements are read as pip reads them; what another pip could read otherwise is refused."""

import random

import pytest

from submit.packages import parse_pins
from submit.requirement_lines import misleading, requirement_lines

HASH = "--hash=sha256:" + "0" * 64
EVIL = "evil @ https://example.org/evil.zip"


def test_lines_are_those_that_pip_takes_whatever_the_text():
    pips = pytest.importorskip("pip._internal.req.req_file").preprocess
    draw, parts = random.Random(0), ["a==1", "#", " ", "\\", "\n", "\\\n", "\t", "\r\n", "\f", " #", "\u2028"]
    for _ in range(20_000):
        text = "".join(draw.choices(parts, k=draw.randint(1, 9)))
        assert requirement_lines(text) == [line for _, line in pips(text)], repr(text)


def test_a_comment_goes_on_in_no_other_line_and_hides_nothing():
    assert parse_pins(f"a==1.0\n# hidden \\\n{EVIL}\n")[1] == [EVIL]
    assert parse_pins(f"a==1.0 # why\nb==2.0 \\\n  {HASH}  # so\n# all\n\t# of it\n") == (
        parse_pins(f"a==1.0\nb==2.0 {HASH}")[0], [])


def test_a_mark_in_the_midst_of_a_word_begins_no_comment():
    assert parse_pins("numpy==2.0#x\na==1.0 #x")[1] == ["numpy==2.0#x"]


@pytest.mark.parametrize(("text", "why"), [
    (f"# hidden \\\n{EVIL}\n", "line 1 is a comment that ends in a backslash"),
    (f"a==1.0 # hidden \\\n{EVIL}\n", "line 1 is a comment that ends in a backslash"),
    (f"# hidden \\ \n{EVIL}\n", "line 1 is a comment that ends in a backslash"),
    ("# coding: utf-7\n# x+AAo-evil==6.6\n", "line 1 names an encoding"),
    ("# x\n# -*- coding=utf-7 -*-\n", "line 2 names an encoding"),
    ("#\r#\r# coding: utf-7\r# x+AAo-evil==6.6\n", "line 3 names an encoding"),  # pip's first line ends at \n
    ("# \u00c5evil==6.6\n", "line 1 is not ASCII"),  # in Latin-1 a new line
    ("\ufeffa==1.0\n", "line 1 is not ASCII")], ids=range(8))
def test_what_programs_read_otherwise_is_named(text, why):
    found = list(misleading(text))
    assert len(found) == 1 and found[0].startswith(why)


def test_what_pack_writes_misleads_nobody():
    text = f"# What infer.py needs, for Python 3.11: pip install -r it\n--no-index\na==1.0 {HASH}\n"
    assert list(misleading(text + f"b==2.0 \\\n  {HASH}\n")) == []
