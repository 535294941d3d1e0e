"""Arrays between two processes: as they were sent, also when they grow, and gone with their senders."""

import multiprocessing
import os
import threading

import numpy as np
import pytest

from pipeline.parallel.shared_memory import Channel


@pytest.fixture
def ends():
    """Two channels that are each other's."""
    with (pair := multiprocessing.Pipe())[0], pair[1]:
        yield [Channel(connection) for connection in pair]


def arrays_of(size):
    rng = np.random.default_rng(size)
    return [rng.standard_normal((2, size, 3), np.float32), rng.integers(0, 255, (size, 5), np.uint8),
            rng.standard_normal((3, size)).T[::2], np.float32(7)[None]]


def test_words_and_arrays_arrive_as_they_were_sent_in_any_order_of_sizes(ends):
    for size in (10, 1, 500, 20):
        sent = arrays_of(size)
        sender = threading.Thread(target=ends[0].send, args=(("step", size), sent))
        sender.start()
        words, received = ends[1].receive()
        sender.join()
        assert words == ("step", size)
        for one, other in zip(sent, received, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_what_was_received_survives_growth_and_the_answer(ends):
    """Before the sender sends again, and after it was given larger memory."""
    ends[0].send(None, [np.arange(5)])
    _, (small,) = ends[1].receive()
    ends[1].send(None, [np.zeros(3)])
    ends[0].receive()
    ends[0].send(None, [np.ones(10_000)])
    _, (large,) = ends[1].receive()
    assert small.tolist() == [0, 1, 2, 3, 4] and large.sum() == 10_000


def test_words_without_arrays_need_no_memory(ends):
    ends[0].send("ready", [])
    assert ends[1].receive() == ("ready", [])


def test_nobody_at_the_other_end_is_an_error_and_no_file_stays_open():
    before = len(os.listdir("/proc/self/fd"))
    one, other = multiprocessing.Pipe()
    other.close()
    channel = Channel(one)
    with pytest.raises(OSError):
        channel.send(None, [np.ones(100_000)])
    one.close()
    del channel
    assert len(os.listdir("/proc/self/fd")) == before
