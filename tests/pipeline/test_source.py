"""While one video is made the next one's inputs are read: the same videos, bounded, and nothing is left."""

import threading
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engines.errors import Exit, InputError
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.request import Options
from pipeline.runner import VideoRunner
from pipeline.source import Inputs, Limits
from tests.processes import processes_about

FRAMES = 64 * 96 * 3  # bytes of one at the plain generator's size


@pytest.fixture
def requests(make_data):
    """A function that makes requests with that many frames, by their ids."""
    def make(**frames):
        return find_requests(make_data(frames)).requests
    return make


def silent(total):
    return nullcontext(SimpleNamespace(tick=lambda: None))


def read(inputs, request):
    with inputs.open(request) as source:
        return np.concatenate(list(source)), source


def ahead(inputs, request):
    """Have a request read ahead, as far as that goes."""
    inputs.upcoming = request
    inputs.read_on()
    inputs._ahead[1].exception()


def test_while_a_video_is_made_the_next_one_is_read_and_the_videos_are_the_same(
        plain, make_data, tmp_path, monkeypatch):
    data, generator, was_read = make_data({"a": 2, "b": 30, "c": 9}), plain(), threading.Event()
    whole, reading = generator.decode, Inputs._read

    def decode(engines, latents):
        if latents.shape[1] == 2:  # the video a
            assert was_read.wait(10), "b was not read while a was made"
        yield from whole(engines, latents)

    def noted(inputs, request):
        source = reading(inputs, request)
        was_read.set()
        return source

    monkeypatch.setattr(generator, "decode", decode)
    monkeypatch.setattr(Inputs, "_read", noted)
    lines = {}
    for overlap in (True, False):
        if not overlap:
            generator.decode = whole
        runner = VideoRunner(generator, generator.engines(), Options(overlap=overlap))
        with RunFolder(tmp_path / str(overlap)) as folder:
            jobs = Jobs(find_requests(data), folder, runner.identity, lambda text: None)
            run_here(jobs, runner)
        lines[overlap] = jobs.lines
    by_turn, at_once = lines[False], lines[True]
    assert [line["id"] for line in at_once] == ["a", "b", "c"] and len(by_turn) == 3
    for one, other in zip(at_once, by_turn, strict=True):
        assert (one["frames_sha256"], one["output_sha256"], one["notes"]) == (
            other["frames_sha256"], other["output_sha256"],
            [note.replace(str(tmp_path / "False"), str(tmp_path / "True")) for note in other["notes"]])
    assert [line["read_ahead_seconds"] > 0 for line in at_once] == [False, True, True]
    assert {line["read_ahead_seconds"] for line in by_turn} == {0}


@pytest.mark.parametrize(("streamed", "most"), [(False, "MOST_AHEAD"), (True, "MOST_AHEAD_STREAMED")])
def test_no_more_is_read_ahead_than_may_be_and_the_rest_is_read_in_its_turn(
        plain, requests, monkeypatch, streamed, most):
    (request,), inputs = requests(a=30), Inputs(plain(), Limits(), streamed)
    expected, _ = read(inputs, request)
    monkeypatch.setattr(f"pipeline.source.{most}", 9 * FRAMES)  # two chunks of 8
    ahead(inputs, request)
    source = inputs._ahead[1].result()
    assert source.frames == 0 and len(processes_about(request.video)) == 1  # ffmpeg waits
    given, source = read(inputs, request)
    assert np.array_equal(given, expected) and source.frames == 30 and source.ahead > 0
    again = np.concatenate(list(source))  # as after memory ran out
    assert np.array_equal(again, expected) and source.frames == 30


def test_what_was_read_ahead_and_is_not_asked_for_is_let_go(plain, requests, monkeypatch):
    (a, b), inputs = requests(a=2, b=30), Inputs(plain(), Limits())
    monkeypatch.setattr("pipeline.source.MOST_AHEAD", FRAMES)
    for let_go in (inputs.drop, lambda: inputs.open(a).close()):
        ahead(inputs, b)
        assert processes_about(b.video)
        let_go()
        assert not processes_about(b.video) and inputs._ahead is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


@pytest.mark.faults
def test_an_error_ahead_is_raised_in_its_turn_and_a_file_mended_meanwhile_is_read(
        plain, requests, make_video_file):
    (request,), inputs = requests(a=30), Inputs(plain(), Limits())
    request.video.write_bytes(request.video.read_bytes()[:-700])
    ahead(inputs, request)
    with pytest.raises(InputError, match="a.mp4"):
        read(inputs, request)
    ahead(inputs, request)
    make_video_file(request.video, 30)
    assert len(read(inputs, request)[0]) == 30


@pytest.mark.faults
def test_if_memory_runs_out_what_was_read_ahead_is_let_go_before_the_video_is_given_up(
        plain, requests, tmp_path):
    a, b = requests(a=2, b=30)
    generator, tries = plain(), []
    generator.chunk = 1
    whole = generator.decode

    def decode(engines, latents):
        tries.append(runner._inputs._ahead)
        if tries[-1]:
            raise MemoryError("b is in the way")
        return whole(engines, latents)

    generator.decode = decode
    runner = VideoRunner(generator, generator.engines())
    line, reason = runner(a, tmp_path, silent, upcoming=b)
    assert reason is Exit.OK and tries[0][0] == b and tries[1:] == [None]
    assert runner(replace(a, id="c"), tmp_path, silent)[1] is Exit.OK
