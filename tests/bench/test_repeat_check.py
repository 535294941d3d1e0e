"""The repeat check: a result that is kept from one request for the next is noticed, and no other."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.batch.dataset import find_requests
from tests.timing_runner import BASE


def test_the_repeat_check_makes_another_request_then_one_twice(timed, runner):
    (timed.data / "pairs.csv").write_text("id,video,image,seed,image2,mood\na,a.mp4,a.png,3,b.png,glad\n"
                                          "b,b.mp4,b.png,4,,\n")
    seen = []

    def asked(request):
        return request.hashes(), request.seed, request.columns

    def seconds(call, name):
        data = Path(call.split()[1])
        if "/repeat/" in call:
            seen.append((name, *next((asked(r), r.video) for r in find_requests(data).requests
                                     if r.id == name)))
        return {"first": 2.0, "again": 1.9}.get(name, 1.0)

    runner.seconds = seconds
    assert timed(BASE, rounds=1)["baseline"]["timing"]["repeat_ratio"] == 0.95
    a, b = find_requests(timed.data).requests
    assert [each[:2] for each in seen] == [("other", asked(b)), ("first", asked(a)), ("again", asked(a))]
    assert asked(a)[2] == {"mood": "glad"} and "image2_sha256" in asked(a)[0]
    assert seen[1][2] == seen[2][2] != seen[0][2]  # the same file, as a cache by name would want it


def test_a_kept_result_is_believed_when_five_runs_agree(timed, runner):
    runner.seconds = lambda call, name: 0.2 if name == "again" else 1.0
    assert timed(BASE, rounds=1)["baseline"]["timing"]["repeat_ratio"] == 0.2
    assert sum("/repeat/" in call for call in runner.calls) == 5


def test_short_requests_that_differ_by_less_than_a_quarter_of_a_second_accuse_nobody(timed, runner):
    runner.seconds = lambda call, name: {"first": 0.3, "again": 0.1}.get(name, 1.0)
    found = timed(BASE, rounds=1)["baseline"]["timing"]
    assert (found["repeat_ratio"], found["repeat_saved"]) == (0.3333, 0.2)
    assert sum("/repeat/" in call for call in runner.calls) == 1


def test_the_request_before_a_repeat_has_about_as_many_frames(timed, runner):
    """What starts for a size of its own in the first one's time would look like a kept result."""
    for part, suffix in (("videos", "mp4"), ("images", "png")):
        shutil.copy(timed.data / part / f"b.{suffix}", timed.data / part / f"c.{suffix}")
    (timed.data / "pairs.csv").write_text("id,video,image,seed\n" + "".join(
        f"{name},{name}.mp4,{name}.png,{seed}\n" for name, seed in {"a": 1, "b": 2, "c": 3}.items()))
    runner.lengths, seeds = {"a": 9, "b": 8, "c": 3}, []
    runner.frames = lambda call, name: seeds.extend(
        r.seed for r in find_requests(Path(call.split()[1])).requests if r.id == name) or "same"
    timed(BASE, rounds=1)
    assert seeds[-3:] == [2, 1, 1]


def test_a_single_slow_moment_accuses_nobody(timed, runner):
    times = iter([1.0, 1.0, 0.5, 1.0, 2.0, 1.2, 1.0, 1.0, 0.95])  # other, first, again; three times
    runner.seconds = lambda call, name: next(times) if "/repeat/" in call else 1.0
    assert timed(BASE, rounds=1)["baseline"]["timing"]["repeat_ratio"] == 0.95


def test_a_single_request_warms_the_repeat_check_up_with_another_seed(timed, runner):
    (timed.data / "videos" / "b.mp4").unlink()
    (timed.data / "images" / "b.png").unlink()
    seeds = []
    runner.frames = lambda call, name: seeds.extend(
        r.seed for r in find_requests(Path(call.split()[1])).requests if r.id == name) or "same"
    timed(BASE, rounds=1)
    assert seeds[-3:] == [43, 42, 42]


@pytest.mark.parametrize(("sizes", "warm_up"), [
    ({"a": [32, 48], "b": [64, 96], "c": [32, 48]}, 3), ({"a": [32, 48], "b": [64, 96], "c": [64, 96]}, 2)])
def test_the_request_before_a_repeat_has_pictures_as_large_else_it_is_the_one_of_another_seed(
        timed, runner, sizes, warm_up):
    """c is as large as a, or nothing is: what starts for a size must not look like a kept result."""
    for part, suffix in (("videos", "mp4"), ("images", "png")):
        shutil.copy(timed.data / part / f"b.{suffix}", timed.data / part / f"c.{suffix}")
    (timed.data / "pairs.csv").write_text("id,video,image,seed\n" + "".join(
        f"{name},{name}.mp4,{name}.png,{seed}\n" for name, seed in {"a": 1, "b": 9, "c": 3}.items()))
    runner.lengths, runner.sizes, seeds = {"a": 9, "b": 9, "c": 3}, sizes, []
    runner.frames = lambda call, name: seeds.extend(
        r.seed for r in find_requests(Path(call.split()[1])).requests if r.id == name) or "same"
    timed(BASE, rounds=1)
    assert seeds[-3:] == [warm_up, 1, 1]


def test_names_that_are_no_text_are_repeated_too(timed, runner):
    for part, suffix in (("videos", "mp4"), ("images", "png")):
        for name in "ab":
            path = timed.data / part / f"{name}.{suffix}"
            path.rename(path.with_name(os.fsdecode(name.encode() + b"\xcb\xef." + suffix.encode())))
    names = []
    runner.frames = lambda call, name: names.append(name) or "same"
    assert timed(BASE, rounds=1)["baseline"]["failed"] == {}
    assert names[-3:] == ["other", "first", "again"] and names[0] == "a\udccb\udcef"
