"""Lists of data folders, read again, give the same requests, wherever their files lie."""

import os
from dataclasses import replace

import pytest

from engines.errors import InputError
from pipeline.batch.data_folder import list_requests
from pipeline.batch.dataset import find_requests


def test_requests_are_read_as_they_were_listed_with_columns_and_further_pictures(make_data, tmp_path):
    data = make_data({"a": 1, "b": 1})
    a, b = find_requests(data).requests
    given = [replace(a, seed=7, pictures={"image2": b.image}, columns={"mood": "glad, or not"}), b]
    list_requests(given, data)
    assert find_requests(data).requests == given
    assert str(data) not in (data / "pairs.csv").read_text()
    list_requests(given[:1], tmp_path / "another")
    assert find_requests(tmp_path / "another").requests == [given[0].absolute()]


GBK = "孙悟空".encode("gbk")  # as the names in an archive from a Chinese Windows are


@pytest.fixture
def gbk(make_data):
    """A data folder of a pair whose names are no UTF-8."""
    data = make_data({"a": 1})
    for part, suffix in (("videos", b".mp4"), ("images", b".png")):
        path = data / part / f"a{os.fsdecode(suffix)}"
        path.rename(data / part / os.fsdecode(GBK + suffix))
    return data


def test_names_that_are_no_text_are_listed_and_read_with_the_bytes_that_they_have(gbk, tmp_path):
    (given,) = find_requests(gbk).requests
    assert os.fsencode(given.id) == GBK
    again = replace(given, id="again", columns={"mood": "glad"})
    for folder in (gbk, tmp_path / "another"):
        list_requests([given, again], folder)
        assert GBK in (folder / "pairs.csv").read_bytes()
        assert find_requests(folder).requests == [given.absolute(), again.absolute()]


@pytest.mark.parametrize("row", [
    b"a,\xcb\xef.mp4,%s.png,", b"\xcb\xef,v.mp4,p.png,", b"a,%s.mp4,%s.png,\xcb\xef"],
    ids=["a name of no file", "an id alone", "another column"])
def test_other_bytes_than_those_of_a_files_name_are_refused(gbk, row):
    for name in ("videos/v.mp4", "images/p.png"):
        (gbk / name).write_bytes(b"any")
    (gbk / "pairs.csv").write_bytes(b"id,video,image,mood\n" + row.replace(b"%s", GBK) + b"\n")
    with pytest.raises(InputError, match=r"pairs.csv is not UTF-8 \(line 2 has other bytes"):
        find_requests(gbk)


def test_a_header_in_another_encoding_is_refused(gbk):
    (gbk / "pairs.csv").write_bytes("id,video,image,心情\n".encode("gbk"))
    with pytest.raises(InputError, match="pairs.csv is not UTF-8 .its header has other bytes"):
        find_requests(gbk)
