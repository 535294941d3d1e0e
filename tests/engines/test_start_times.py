"""Seconds of a component's start by part, of its first calls, and parts that components share."""

import time

from engines.shared_parts import shared, sharing
from engines.start_times import CALLS, start_seconds, starting, timed, timing_first_calls


def test_each_second_counts_for_the_innermost_part_alone():
    with starting() as seconds:
        time.sleep(0.02)
        with timed("read"):
            time.sleep(0.04)
            with timed("hash"):
                time.sleep(0.08)
        with timed("hash"):
            time.sleep(0.02)
    assert list(seconds) == ["hash", "read", "load"]
    assert seconds["hash"] >= 0.1 and 0.04 <= seconds["read"] < seconds["hash"]
    assert 0.02 <= seconds["load"] < 0.1
    with timed("read"):  # nothing is started
        pass
    assert len(seconds) == 3


def test_the_first_calls_of_an_engine_are_timed_and_no_others():
    class Engine:
        @timing_first_calls
        def __call__(self, **arrays):
            time.sleep(arrays["seconds"])
            return arrays

    engine = Engine()
    engine.start_seconds = {"load": 0.12345678}
    assert start_seconds({"a": engine, "b": len}) == {
        "a": {"load": 0.1235, "first_calls": []}, "b": {"first_calls": []}}
    for seconds in (0.03, 0.0, 0.02, 0.0, 0.0):
        assert engine(seconds=seconds) == {"seconds": seconds}
    found = start_seconds({"a": engine})["a"]["first_calls"]
    assert len(found) == CALLS and found[0] >= 0.03 > found[1] and found[2] >= 0.02


def test_what_starts_together_shares_parts_and_nothing_else_does():
    loads = []

    def load():
        loads.append(object())
        return loads[-1]

    parts, others = {}, {}
    with sharing(parts):
        first = shared("vae", load)
        with sharing(others):
            assert shared("vae", load) is not first
        assert shared("vae", load) is first and shared("clip", load) is not first
    assert shared("vae", load) is not first and shared("vae", load) is not loads[-2]
    assert len(loads) == 5
