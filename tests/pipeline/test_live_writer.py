"""The growing file: frames can be seen before the next are there, and equal frames give equal bytes."""

import time
from fractions import Fraction

import numpy as np
import pytest

from engines.errors import OutputError
from pipeline.video import live_writer
from pipeline.video.live_writer import LiveVideo
from pipeline.video.reader import read
from tests.conftest import skeleton_frames


def fragments(path):
    return path.read_bytes().count(b"moof") if path.exists() else 0


def test_frames_are_in_the_file_before_the_next_chunk_and_chunks_do_not_change_its_bytes(tmp_path):
    frames = skeleton_frames(20, 64, 96)
    with LiveVideo(tmp_path / "a.mp4", (64, 96), Fraction(24)) as live:
        live.write(frames[:8])
        while fragments(tmp_path / "a.mp4") < 7:  # the last waits for the one after it
            time.sleep(0.01)
        begun = (tmp_path / "a.mp4").read_bytes()
        for chunk in np.split(frames[8:], [8]):
            live.write(chunk)
    live.wait()
    live.close()
    whole = (tmp_path / "a.mp4").read_bytes()
    assert whole.startswith(begun) and len(read(tmp_path / "a.mp4").frames) == 20
    with LiveVideo(tmp_path / "b.mp4", (64, 96), Fraction(24)) as again:
        again.write(frames)
    again.wait()
    again.close()
    assert (tmp_path / "b.mp4").read_bytes() == whole


def test_a_file_nobody_wants_is_not_begun_until_frames_are_too_many_to_hold(tmp_path, monkeypatch):
    frames, wanted = skeleton_frames(20, 64, 96), []

    def written(name):
        path = tmp_path / name
        with LiveVideo(path, (64, 96), Fraction(24), lambda: bool(wanted)) as live:
            for chunk in np.split(frames, [8, 16]):
                live.write(chunk)
                wanted.extend(["now"] * (name == "late.mp4"))
        live.wait()
        live.close()
        return path.exists() and path.read_bytes()

    assert written("none.mp4") is False
    whole = written("late.mp4")
    assert whole == written("from-the-start.mp4") and whole.count(b"moof") == 20
    wanted.clear()
    monkeypatch.setattr(live_writer, "MOST_HELD", frames[:8].nbytes - 1)
    assert written("many.mp4") == whole


def test_a_file_that_cannot_be_written_is_an_error_with_its_reason(tmp_path):
    live = LiveVideo(tmp_path / "gone" / "a.mp4", (64, 96), Fraction(24))
    with pytest.raises(OutputError, match=r"gone/a.mp4: writing failed .*No such file"), live:
        for _ in range(30):
            live.write(skeleton_frames(2, 64, 96))
    live.close()
    with LiveVideo(tmp_path / "gone" / "a.mp4", (64, 96), Fraction(24)) as live:
        pass
    with pytest.raises(OutputError, match=r"gone/a.mp4: writing failed .*No such file"):
        live.wait()
    live.close()


def test_a_block_that_raises_leaves_what_was_written_and_no_encoder(tmp_path):
    live = LiveVideo(tmp_path / "a.mp4", (64, 96), Fraction(24))
    with pytest.raises(ValueError, match="mine"), live:
        live.write(skeleton_frames(20, 64, 96))
        while fragments(tmp_path / "a.mp4") < 7:
            time.sleep(0.01)
        raise ValueError("mine")
    assert live._child.process.returncode is not None and (tmp_path / "a.mp4").stat().st_size
