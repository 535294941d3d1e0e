"""Hashes of large files are remembered while nothing about a file says that it changed."""

import json
import os
import time

import pytest

from engines import hashes
from engines.hashes import CACHE, VERIFY, file_sha256, known_sha256
from pipeline.submission import entry_defaults


@pytest.fixture(autouse=True)
def reading(monkeypatch, tmp_path):
    """What is read in full, with an empty memory and none of the process's own."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(VERIFY, raising=False)
    monkeypatch.setattr(hashes, "SETTLED", SETTLED)
    read = []

    def counted(path):
        read.append(path.name)
        return file_sha256(path)
    monkeypatch.setattr(hashes, "file_sha256", counted)
    return read


SETTLED = 0.05  # seconds that these tests wait, in place of two
PAST = 100  # seconds


def again(path):
    """Ask as another process does."""
    hashes._known.cache_clear()
    return known_sha256(path)


def large(path, byte=b"a", seconds=PAST):
    path.write_bytes(byte * hashes.LARGE)
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))
    time.sleep(SETTLED * 2)
    return path


def test_a_large_file_is_read_once(tmp_path, reading):
    path = large(tmp_path / "weights")
    assert again(path) == again(path) == known_sha256(path) == file_sha256(path)
    assert reading == ["weights"]


@pytest.mark.parametrize("change", ["bytes", "time", "another file", "size", "bytes alone"])
def test_whatever_changes_of_it_it_is_read_again(tmp_path, reading, change):
    path = large(tmp_path / "weights")
    again(path)
    at = path.stat()
    if change == "bytes":
        large(path, b"b", 50)
    elif change == "time":
        os.utime(path, (1, 1))
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"b")
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    elif change == "bytes alone":  # as by cp -p, or tar where the inode is used again
        path.write_bytes(b"b" * hashes.LARGE)
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    else:  # of the same size and time
        other = large(tmp_path / "other", b"b")
        os.utime(other, ns=(at.st_atime_ns, at.st_mtime_ns))
        os.replace(other, path)
    assert again(path) == file_sha256(path) and reading == ["weights", "weights"]


def test_small_and_new_files_and_all_on_request_are_read_each_time(tmp_path, reading, monkeypatch):
    (tmp_path / "small").write_bytes(b"a")
    path = large(tmp_path / "weights")
    again(path)
    monkeypatch.setattr(hashes, "SETTLED", 600)
    new, unpacked = large(tmp_path / "new", seconds=0), large(tmp_path / "unpacked")  # this with an old date
    del reading[:]
    for _ in range(2):
        for each in (tmp_path / "small", new, unpacked, path):
            again(each)
    assert reading == ["small", "new", "unpacked"] * 2
    monkeypatch.setenv(VERIFY, "1")
    again(path)
    assert reading[-1] == "weights"


def test_a_damaged_or_unwritable_memory_costs_only_time(tmp_path, reading):
    path = large(tmp_path / "weights")
    expected = again(path)
    (memory,) = (tmp_path / "cache" / "sha256").iterdir()
    for damaged in ("", "[]", '{"file": 1}'):
        memory.write_text(damaged)
        assert again(path) == expected
    assert reading == ["weights"] * 4
    (tmp_path / "cache").rename(tmp_path / "moved")
    (tmp_path / "cache").write_text("a file")
    assert again(path) == expected


def test_with_no_folder_nothing_is_remembered(tmp_path, reading, monkeypatch):
    monkeypatch.setenv(CACHE, "")
    path = large(tmp_path / "weights")
    again(path), again(path)
    assert reading == ["weights"] * 2


def test_a_submission_remembers_nothing(tmp_path, monkeypatch):
    entry = {"generator": "presenter", "data": "data", "out": "out", "recipe": "recipe.toml"}
    (tmp_path / "submission.json").write_text(json.dumps({"entry": entry}))
    monkeypatch.setenv(CACHE, "somewhere")
    assert entry_defaults(tmp_path / "nowhere") == {} and os.environ[CACHE] == "somewhere"
    assert entry_defaults(tmp_path)["data"] == tmp_path / "data" and os.environ[CACHE] == ""
