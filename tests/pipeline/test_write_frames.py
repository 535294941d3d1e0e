"""Frames are hashed and written in order, while the next ones are made; a failure is the caller's."""

import hashlib
import threading
from fractions import Fraction

import numpy as np
import pytest
import torch

from engines.errors import OutputError
from generators.generator_error import GeneratorError
from pipeline.stopwatch import Seconds
from pipeline.video.writer import VideoWriter
from pipeline.write_frames import write_frames

CHUNKS = [np.full((2, 3, 4, 3), number, np.uint8) for number in range(5)]


class Writer:
    """Keeps frames; waits before each until it may go on, fails at one."""

    def __init__(self, may=None, fails=None):
        self.frames, self.ended, self.may, self.fails = [], None, may, fails

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.ended = kind

    def write(self, frame):
        if self.may:
            assert self.may.wait(10), "the next chunk was not asked for"
        if len(self.frames) == self.fails:
            raise OutputError("the disk is full")
        self.frames.append(frame.copy())


def test_frames_come_in_order_with_the_hash_of_them_all():
    writer, seconds = Writer(), Seconds()
    found = write_frames(iter(CHUNKS), writer, seconds)
    frames = np.concatenate(CHUNKS)
    assert np.array_equal(writer.frames, frames) and writer.ended is None
    assert found == hashlib.sha256(frames.tobytes()).hexdigest() and list(seconds.stages) == ["write"]


def test_pixels_may_lie_in_memory_in_any_way():
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 4, 3), np.uint8)
    channels_first, bgr = frames.transpose(0, 3, 1, 2).copy(), frames[..., ::-1].copy()
    found = {write_frames(iter([pixels]), Writer(), Seconds())
             for pixels in (frames, channels_first.transpose(0, 2, 3, 1), bgr[..., ::-1])}
    assert found == {hashlib.sha256(frames.tobytes()).hexdigest()}


@pytest.mark.parametrize("wrong", [
    np.zeros((2, 48, 64, 3), np.float32), np.zeros((2, 3, 48, 64), np.uint8), torch.zeros(2, 48, 64, 3)])
def test_pixels_of_another_kind_are_the_generators_error_and_leave_no_file(tmp_path, wrong):
    writer = VideoWriter(tmp_path / "a.mp4", 64, 48, Fraction(24))
    with pytest.raises(GeneratorError, match=r"decode gives pixels of a wrong kind: .* expected numpy uint8"):
        write_frames(iter([wrong]), writer, Seconds())
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_is_made_while_the_one_before_is_written():
    asked = threading.Event()

    def chunks():
        yield CHUNKS[0]
        asked.set()
        yield CHUNKS[1]
    writer = Writer(asked)
    write_frames(chunks(), writer, Seconds())
    assert len(writer.frames) == 4


def test_no_more_than_one_chunk_waits():
    writer = Writer(threading.Event())

    def chunks():
        for number, chunk in enumerate(CHUNKS):
            assert len(writer.frames) >= 2 * (number - 1), "more than one chunk waits"
            if number == 1:
                threading.Timer(0.2, writer.may.set).start()
            yield chunk
    write_frames(chunks(), writer, Seconds())
    assert len(writer.frames) == 10


@pytest.mark.parametrize("fails", [0, 3, 9])
def test_a_writers_failure_ends_it(fails):
    writer = Writer(fails=fails)
    with pytest.raises(OutputError, match="the disk is full"):
        write_frames(iter(CHUNKS), writer, Seconds())
    assert writer.ended is OutputError and len(writer.frames) == fails


def test_a_failure_of_the_chunks_ends_it_when_what_was_made_is_written():
    def chunks():
        yield CHUNKS[0]
        raise MemoryError("decode")
    writer = Writer()
    with pytest.raises(MemoryError, match="decode"):
        write_frames(chunks(), writer, Seconds())
    assert writer.ended is MemoryError and len(writer.frames) == 2
