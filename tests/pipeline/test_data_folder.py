"""Lists of data folders, read again, give the same requests, wherever their files lie."""

from dataclasses import replace

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
