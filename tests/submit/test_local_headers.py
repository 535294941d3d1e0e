"""Both headers of an entry say the same, or the archive is refused: unzip heeds the one before the bytes."""

import io
import shutil
import struct
import subprocess
import zipfile

import pytest

from submit.archive import read_entries, write_archive
from submit.check import STATIC
from submit.checks import FAIL, Submission, evaluate
from submit.local_headers import beside_headers, headers_differ
from submit.profile import load_profile
from tests.submissions import entry

TEXT = b"import sys\n" * 20
# By what is spoilt: where it stands in the header of infer.py, how, what is put there, and how it is told.
SPOILT = {
    "a version": (4, "<H", 63, "needs version 63 by its own header, and 20 by the list"),
    "an encryption flag": (6, "<H", 1, "has 1 for the flags in its own header, and 0 in the list"),
    "a method": (8, "<H", 0, "has 0 for the method in its own header, and 8 in the list"),
    "a checksum": (14, "<L", 5, "has 5 for the checksum in its own header"),
    "no packed size": (18, "<L", 0, "has 0 for the packed size in its own header"),
    "a packed size": (18, "<L", 3, "has 3 for the packed size in its own header"),
    "a size": (22, "<L", 7, "has 7 for the size in its own header, and 220 in the list"),
    "a size of zip64": (22, "<L", 2**32 - 1, "has no header that can be read"),
    "no mark": (0, "<L", 0, "has no header that can be read before its bytes (it does not begin as one)"),
}


@pytest.fixture
def good(tmp_path):
    write_archive(tmp_path / "a.zip", {"a.txt": b"", "infer.py": TEXT})
    return tmp_path / "a.zip"


def header_at(path, name="infer.py"):
    return next(each.header_offset for each in read_entries(path) if each.filename == name)


def put(path, at, form, value):
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, value)
    path.write_bytes(content)
    return path


def problems(path):
    return list(headers_differ(path, read_entries(path)))


def status(path, id):
    with Submission(path, load_profile("cpu")) as submission:
        return evaluate(next(each for each in STATIC if each.id == id), submission)


@pytest.mark.parametrize("name", SPOILT)
def test_a_header_that_says_otherwise_is_refused(good, name):
    at, form, value, why = SPOILT[name]
    assert status(good, "S01").problems == []
    found = status(put(good, header_at(good) + at, form, value), "S01")
    assert found.status == FAIL and found.problems[0].startswith(f"'infer.py' {why}")


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip here")
def test_zipfile_reads_on_where_unzip_gives_another_file(good, tmp_path):
    """Why this is looked at: S01 had passed such an archive, as Python's zipfile reads it."""
    put(good, header_at(good) + 8, "<H", 0)
    with zipfile.ZipFile(good) as archive:
        assert archive.read("infer.py") == TEXT
    subprocess.run(["unzip", "-q", "-o", good, "-d", tmp_path / "it"], capture_output=True)
    made = tmp_path / "it" / "infer.py"
    assert not made.exists() or made.read_bytes() != TEXT


class Pipe(io.BytesIO):
    """A file that cannot be gone back in, for which zip files have figures behind the bytes."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation

    def tell(self):
        raise io.UnsupportedOperation


@pytest.mark.parametrize("wide", [False, True])
def test_figures_behind_the_bytes_are_read_too(tmp_path, wide):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive, archive.open(entry("a"), "w", force_zip64=wide) as file:
        file.write(TEXT)
    path = tmp_path / "a.zip"
    path.write_bytes(pipe.getvalue())
    assert problems(path) == []
    content = path.read_bytes()
    put(path, content.index(b"PK\x07\x08") + 4, "<L", 1)
    assert problems(path) == ["'a' has other figures behind its bytes than in the list of entries"]
    path.write_bytes(content)
    put(path, 22 if not wide else content.index(struct.pack("<HHQQ", 1, 16, 0, 0)) + 4, "<L", 9)
    assert problems(path) == ["'a' has 9 for the size in its own header, and 220 in the list of entries"]


def with_field(path, field):
    """The archive a.zip with one entry, whose own header has a further field."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry("a"), TEXT)
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, 28, len(field))
    content[31:31] = field
    (listed,) = struct.unpack_from("<L", content, len(content) - 6)
    struct.pack_into("<L", content, len(content) - 6, listed + len(field))
    path.write_bytes(content)
    return path


def test_what_only_the_own_header_has_is_no_hiding_place(tmp_path):
    path = with_field(tmp_path / "a.zip", struct.pack("<HH", 0x4242, 6) + b"SECRET")
    assert problems(path) == [] and status(path, "S16").problems == [
        "'a' has an extra field in its own header"]
    unused = with_field(tmp_path / "a.zip", struct.pack("<HHQQ", 1, 16, 0, 0))
    assert status(unused, "S16").problems == ["'a' has an extra field in its own header"]
    renamed = with_field(tmp_path / "a.zip", struct.pack("<HHBL", 0x7075, 9, 1, 0) + b"evil")
    assert problems(renamed) == ["'a' has another name in an extra field of its own header"]
    short = with_field(tmp_path / "a.zip", struct.pack("<HH", 0x4242, 60) + b"SECRET")
    assert "cut short" in problems(short)[0]


def test_a_time_of_its_own_is_told(good):
    put(good, header_at(good) + 10, "<H", 77)
    assert status(good, "S16").problems == ["'infer.py' has another time in its own header"]


def test_sizes_in_a_field_of_zip64_are_taken_from_it(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open(entry("a"), "w", force_zip64=True) as file:
        file.write(TEXT)
    entries = read_entries(path)
    assert [*headers_differ(path, entries), *beside_headers(path, entries)] == []
    put(path, path.read_bytes().index(struct.pack("<HHQ", 1, 16, len(TEXT))) + 4, "<Q", 9)
    assert problems(path) == ["'a' has 9 for the size in its own header, and 220 in the list of entries"]
