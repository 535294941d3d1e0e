"""How many videos a data folder may have."""

import pytest

from engines.errors import InputError
from pipeline.batch.dataset import find_requests


def test_more_videos_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.batch.dataset.MOST_REQUESTS", 2)
    for name in ("videos/a.mp4", "videos/b.mp4", "videos/c.mp4", "images/a.png", "images/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="has 3 videos, more than 2; make folders of fewer"):
        find_requests(tmp_path)
