"""Archives: equal content gives equal bytes, and whatever one holds, nothing is written elsewhere."""

import os
import random
import shutil
import stat
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

import submit.__main__ as submit
from engines.errors import InputError
from submit.archive import damaged, read_entries, unpack, unpack_with_unzip, unsafe, write_archive
from tests.submissions import entry

FILES = {"b.txt": b"b" * 100, "a/c.py": b"print()\n", "wheels/x.whl": b"PK"}


def write(path, *entries):
    """A zip file of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w") as made:
        for name, content in entries:
            made.writestr(name if isinstance(name, zipfile.ZipInfo) else entry(name), content)
    return path


def test_equal_content_gives_equal_bytes_whatever_order_times_and_modes(tmp_path):
    source = tmp_path / "source.txt"
    source.write_bytes(FILES["b.txt"])
    source.chmod(0o755)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    one = write_archive(tmp_path / "one.zip", FILES)
    other = write_archive(tmp_path / "other.zip", {**dict(reversed(FILES.items())), "b.txt": source})
    assert one == other and (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()
    assert write_archive(tmp_path / "third.zip", {**FILES, "b.txt": b"c"}) != one


def test_entries_are_sorted_dated_1980_and_wheels_are_stored(tmp_path):
    write_archive(tmp_path / "a.zip", FILES)
    found = read_entries(tmp_path / "a.zip")
    assert [each.filename for each in found] == ["a/c.py", "b.txt", "wheels/x.whl"]
    assert {each.date_time for each in found} == {(1980, 1, 1, 0, 0, 0)}
    assert {each.external_attr >> 16 for each in found} == {stat.S_IFREG | 0o644}
    assert [each.compress_type for each in found] == [8, 8, 0]


def test_a_failed_write_leaves_the_older_archive_and_nothing_else(tmp_path):
    (tmp_path / "a.zip").write_text("older")
    with pytest.raises(FileNotFoundError):
        write_archive(tmp_path / "a.zip", {"a": b"a", "b": tmp_path / "missing"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert (tmp_path / "a.zip").read_text() == "older"


HOSTILE = {
    "is an absolute path": "/tmp/escaped",
    "leads out of the folder": "a/../../escaped",
    "is an absolute path ": "C:/escaped",
    "has a backslash": "..\\escaped",
    "has control characters": "a\x1bb",
    "has empty parts": "a//b",
    "was left by a tool": "__MACOSX/a",
    "was left by a tool ": "a/.DS_Store",
    "was left by a tool  ": "a/__pycache__/b.pyc",
}


@pytest.mark.parametrize("unpacker", [unpack, unpack_with_unzip])
@pytest.mark.parametrize(("why", "name"), HOSTILE.items(), ids=HOSTILE.values())
def test_a_hostile_name_is_refused_and_nothing_is_written(tmp_path, why, name, unpacker):
    path = write(tmp_path / "a.zip", ("good.txt", b"x"), (name, b"escaped"))
    with pytest.raises(InputError, match=why.strip()):
        unpacker(path, tmp_path / "deep" / "folder")
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]
    assert not Path("/tmp/escaped").exists()


def test_a_symbolic_link_and_a_device_are_refused(tmp_path):
    for mode, what in ((stat.S_IFLNK | 0o777, "a symbolic link"), (stat.S_IFCHR | 0o644, "no regular file")):
        path = write(tmp_path / "a.zip", (entry("link", mode), b"/etc"), ("link/passwd", b"x"))
        assert f"'link' is {what}" in list(unsafe(read_entries(path)))
        with pytest.raises(InputError, match=what):
            unpack(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_than_deflate_are_named(tmp_path, method):
    path = write(tmp_path / "a.zip", (entry("a", method=method), b"x" * 100))
    assert list(unsafe(read_entries(path))) == [
        f"'a' is compressed by method {method}; only 0 and 8 (deflate) are safe"]


def test_names_that_are_one_where_case_does_not_count(tmp_path):
    names = ("Data.py", "data.py", "e\u0301.py", "\u00e9.py")
    path = write(tmp_path / "a.zip", *((name, b"x") for name in names))
    assert len(list(unsafe(read_entries(path)))) == 2


def test_an_encrypted_entry_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", ("a", b"x"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert list(unsafe(read_entries(path))) == ["'a' is encrypted"]


def test_a_bomb_whose_entries_share_one_body_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", ("a", b"x" * 5000), ("b", b"x" * 5000))
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)  # b's directory entry
    path.write_bytes(content[:start + 42] + struct.pack("<I", 0) + content[start + 46:])
    assert any("overlap, as in a zip bomb" in why for why in unsafe(read_entries(path)))
    with pytest.raises(InputError, match="overlap"):
        unpack(path, tmp_path / "folder")


def test_an_entry_that_grows_beyond_its_declared_size_is_damaged_and_read_no_further(tmp_path):
    path = write(tmp_path / "a.zip", ("a", b"\0" * 1_000_000))
    content = path.read_bytes()
    for at in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content = content[:at] + struct.pack("<I", 10) + content[at + 4:]
    path.write_bytes(content)
    assert len(list(damaged(path))) == 1


def test_a_flipped_byte_is_damage(tmp_path):
    path = write(tmp_path / "a.zip", ("a", os.urandom(1000)), ("b", b"fine"))
    content = bytearray(path.read_bytes())
    content[500] ^= 0xFF
    path.write_bytes(content)
    assert [why.partition(":")[0] for why in damaged(path)] == ["'a' cannot be unpacked"]


def test_a_pipe_for_an_archive_is_an_input_error_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(InputError, match="is no regular file .*; expected a zip"):
        read_entries(tmp_path / "a.zip")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_zip_file_is_an_input_error(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="is not a zip file that can be read|expected a zip"):
        read_entries(tmp_path / "a.zip")


def test_zipfile_forgets_modes_and_the_other_way_keeps_them(tmp_path, monkeypatch):
    path = write(tmp_path / "a.zip", (entry("tool", stat.S_IFREG | 0o755), b"#!/bin/sh\n"))
    unpack(path, tmp_path / "zipfile")
    assert not os.access(tmp_path / "zipfile" / "tool", os.X_OK)
    which = shutil.which
    for found in {which("unzip"), None}:
        answer = {"unzip": found}
        monkeypatch.setattr(shutil, "which", lambda name, answer=answer: answer.get(name, which(name)))
        told = unpack_with_unzip(path, tmp_path / f"as {found}")
        assert (told == "unzip") == (found is not None)
        assert os.access(tmp_path / f"as {found}" / "tool", os.X_OK)


def test_a_good_archive_is_safe_whole_and_unpacks_alike_in_both_ways(tmp_path):
    write_archive(tmp_path / "a.zip", FILES)
    assert [*unsafe(read_entries(tmp_path / "a.zip")), *damaged(tmp_path / "a.zip")] == []
    for number, unpacker in enumerate((unpack, unpack_with_unzip)):
        unpacker(tmp_path / "a.zip", tmp_path / str(number))
        assert {name: (tmp_path / str(number) / name).read_bytes() for name in FILES} == FILES


def test_random_edits_never_write_outside(tmp_path):
    write_archive(tmp_path / "good.zip", {"a.txt": b"a", "b/c.txt": b"c"})
    good, draw = (tmp_path / "good.zip").read_bytes(), random.Random(0)
    folder = tmp_path / "inside" / "folder"
    for _ in range(300):
        content = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] = draw.choice(b"/.\\\x00a\xff~:")
        (tmp_path / "bad.zip").write_bytes(content)
        with suppress(InputError):
            unpack(tmp_path / "bad.zip", folder)
        shutil.rmtree(folder, ignore_errors=True)
        assert sorted(each.name for each in tmp_path.iterdir()) in (
            ["bad.zip", "good.zip"], ["bad.zip", "good.zip", "inside"])
        assert not (tmp_path / "inside").exists() or list((tmp_path / "inside").iterdir()) == []




def test_a_base_demo_that_is_missing_is_an_error_of_the_data(make_data, run_main, tmp_path):
    """Else the archive would be run, and blamed for the video that nothing can be held against."""
    data = make_data({"a": 2, "b": 2})
    shutil.copytree(data / "videos", data / "outputs")
    (data / "outputs" / "b.mp4").unlink()
    found = run_main(submit, "check", tmp_path / "no.zip", "--data", data, "--target", "cpu")
    assert found.status == 3 and "lacks the base model's videos of b; make them: python infer.py" in found.err
    (data / "outputs" / "b.mp4").write_bytes(b"")
    assert "no.zip" in run_main(submit, "check", tmp_path / "no.zip", "--data", data, "--target", "cpu").err
