"""Files that appear whole or not at all."""

import os

import pytest

from engines.files import atomic_write


def test_a_file_and_its_folder_appear_with_what_was_written(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as draft:
        assert draft.suffix == ".txt" and not path.exists()
        draft.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["the block", "os.replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    def fail(*paths):
        raise OSError(28, "No space left")

    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as draft:
        draft.write_text("new")
        if step == "the block":
            fail()
        monkeypatch.setattr(step, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_replaces_a_file_is_on_the_disk_before_and_its_folder_after(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("engines.files.sync", lambda path: done.append(
        path.read_text() if path.is_file() else "folder"))
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda *paths: done.append("replaced") or replace(*paths))
    with atomic_write(tmp_path / "a.txt") as draft:
        draft.write_text("new")
    assert done == ["new", "replaced", "folder"]


def test_two_writers_do_not_spoil_each_other_s_file(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as first:
        first.write_text("first")
        with atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
