"""Overlap against one after the other: both are timed, the frames must be the same, figures come by stage."""

import json

from lab import overlap


def test_both_ways_are_timed_by_stage(run_main, tiny_file, make_data):
    data = make_data({"a": 2, "b": 9})
    result = run_main(overlap, "--generator", f"{tiny_file}:Tiny", "--data", data, "--rounds", 1,
                      "--call-seconds", 0)
    found = json.loads(result.out)
    assert result.status == 0 and found["videos"] == 2
    assert [found["speed_ratio"]] == found["of_rounds"]
    at_once, in_turn = found[overlap.AT_ONCE], found[overlap.IN_TURN]
    assert at_once["read_ahead"] > 0 == in_turn["read_ahead"]
    assert at_once["stages"].keys() == {"read", "condition", "denoise", "decode", "write"}
    assert 0 < at_once["stages"]["read"] < at_once["seconds_a_video"]


def test_a_video_that_cannot_be_made_ends_it_with_its_reason(run_main, tiny_file, make_data):
    data = make_data({"a": 2})
    (data / "videos" / "a.mp4").write_text("not a video")
    result = run_main(overlap, "--generator", f"{tiny_file}:Tiny", "--data", data, "--call-seconds", 0)
    assert result.status == 3 and "lab.overlap: a: " in result.err
