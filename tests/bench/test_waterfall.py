"""Where time goes: calls and arithmetic counted, bars that add up, a picture, clear words otherwise."""

import copy
import json

import pytest

from bench.roofline import calls, operations, peak, roofline_seconds
from bench.waterfall import Bar, bars_of, draw_waterfall
from pipeline.recipe import BASELINE, parse_recipe

STAGES = {"read": 0.1, "condition": 0.2, "denoise": 3.0, "decode": 0.4, "write": 0.2, "other": 0.1}


def timed(name, recipe=None, **more):
    """A run as report.json has it, of two videos of 40 frames."""
    videos = [{"id": name, "frames": 40} for name in "ab"] + [{"id": "c", "status": "failed"}]
    timing = {"cold_start": 1.0, "stages": STAGES, "videos": {"a": {}, "b": {}}}
    plain = {"name": name, "backend": "torch", "precision": "fp32", "note": ""}
    return {"name": name, "recipe": {**plain, **(recipe or {}), **more}, "timing": timing, "videos": videos}


def test_calls_follow_from_windows_chunks_and_the_step_plan(tiny):
    """40 frames are three windows; the grid has two steps."""
    base = calls(tiny, BASELINE, 40)
    assert base["denoise"] == 2 * 2 * 3  # branches, steps, windows
    assert base["encode"] == base["decode"] == -(-40 // tiny.chunk)
    planned = parse_recipe('[steps]\nactions = "FC"', "planned")
    assert calls(tiny, planned, 40) == {**base, "denoise": 3 * 3}
    unguided = copy.copy(tiny)
    unguided.guidance = 1.0
    assert calls(unguided, planned, 40)["denoise"] == 2 * 3


def test_operations_are_counted_twice_for_each_multiplication(tiny):
    work = operations(tiny)
    assert set(work) == set(tiny.components) and all(value > 0 for value in work.values())
    assert roofline_seconds({"denoise": 3}, work, 2.0) == 1.5 * work["denoise"]


def test_the_peak_of_this_machine_is_a_rate():
    assert peak("fp32") > 1e8


def test_bars_add_up_and_a_plan_lowers_the_roofline(tiny):
    steps = {"actions": "F" + "S" * (tiny.scheduler.steps - 1), "corrections": [], "guard": None}
    technique = {"name": "uniform-skip", "settings": {"every": 3}}
    report = {"runs": [timed("baseline"), timed("fast", steps=steps), timed("skip", technique=technique),
                       {"name": "judged only", "recipe": None, "timing": None, "videos": []}]}
    base, fast = bars_of(report, tiny)
    assert (base.name, fast.name) == ("baseline", "fast")
    assert base.seconds == pytest.approx(4.5) and base.stages["start"] == 0.5
    assert 0 < fast.roofline < base.roofline


def test_the_picture_is_a_png(tmp_path):
    bars = [Bar("baseline", {"start": 0.1, **STAGES}, 1.0), Bar("fast", {"start": 0.1, "denoise": 0.2}, 0.05)]
    draw_waterfall(bars, tmp_path / "new" / "fall.png")
    assert (tmp_path / "new" / "fall.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_without_times_is_refused(tiny):
    with pytest.raises(ValueError, match="no timed recipe"):
        bars_of({"runs": [{"name": "x", "recipe": None, "timing": None, "videos": []}]}, tiny)


@pytest.mark.parametrize("text", ["{}", "[1]", json.dumps({"runs": [{"recipe": None}]})])
def test_another_file_is_wrong_usage(text, tmp_path, monkeypatch, capsys):
    from bench import __main__ as script

    path = tmp_path / "report.json"
    path.write_text(text)
    monkeypatch.setattr("sys.argv", ["bench", "waterfall", str(path)])
    assert script.main() == 2
    assert str(path) in capsys.readouterr().err
