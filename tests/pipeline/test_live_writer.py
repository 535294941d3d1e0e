"""The growing file: frames can be seen before the next are there, and equal frames give equal bytes."""

import time
from fractions import Fraction

import numpy as np
import pytest

from engines.errors import OutputError
from pipeline.video.live_writer import live_chunks
from pipeline.video.reader import read
from tests.conftest import skeleton_frames


def test_frames_are_in_the_file_before_the_next_chunk_and_chunks_do_not_change_its_bytes(tmp_path):
    frames = skeleton_frames(20, 64, 96)
    chunks = live_chunks(np.split(frames, [8, 16]), tmp_path / "a.mp4", (64, 96), Fraction(24))
    assert np.array_equal(next(chunks), frames[:8])
    while (tmp_path / "a.mp4").read_bytes().count(b"moof") < 7:  # the last waits for the one after it
        time.sleep(0.01)
    begun = (tmp_path / "a.mp4").read_bytes()
    assert sum(map(len, chunks)) == 12
    whole = (tmp_path / "a.mp4").read_bytes()
    assert whole.startswith(begun) and len(read(tmp_path / "a.mp4").frames) == 20
    assert list(map(len, live_chunks([frames], tmp_path / "b.mp4", (64, 96), Fraction(24)))) == [20]
    assert (tmp_path / "b.mp4").read_bytes() == whole


def test_a_file_that_cannot_be_written_is_an_error_with_its_reason(tmp_path):
    frames = skeleton_frames(2, 64, 96)
    with pytest.raises(OutputError, match=r"gone/a.mp4: writing failed .*No such file"):
        list(live_chunks([frames] * 3, tmp_path / "gone" / "a.mp4", (64, 96), Fraction(24)))
