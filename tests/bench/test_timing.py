"""Timing recipes: the order of runs, the arithmetic, what is kept, what is noticed and how it fails."""

import json
from dataclasses import asdict

import pytest

from bench import timing
from bench.timed_run import Outcome, RunFailed
from bench.timing import TWIN, differing, figures, noise_floor, stages
from engines.errors import InputError, OutputError
from pipeline.recipe import Recipe, RecipeError
from tests.timing_runner import BASE, BUILT, FAST


def outcome(script, **videos):
    line = {"status": "done", "seconds": {}, "peak_memory_mb": 5}
    return Outcome(script, [{**line, "id": name, "total_seconds": s} for name, s in videos.items()])


# The order of runs


def test_every_recipe_is_warmed_up_then_runs_once_a_round_and_the_baseline_twice(timed, runner):
    timed(BASE, FAST)
    names = [text.rpartition(": ")[0] for text in timed.said]
    assert names == [
        "warm-up: baseline", "warm-up: fast",
        "round 1 of 3: baseline", "round 1 of 3: fast", f"round 1 of 3: {TWIN}",
        "round 2 of 3: fast", f"round 2 of 3: {TWIN}", "round 2 of 3: baseline",
        f"round 3 of 3: {TWIN}", "round 3 of 3: baseline", "round 3 of 3: fast",
        "repeated request: baseline", "repeated request: fast"]
    assert len(runner.calls) == len(names)


def test_a_run_is_infer_py_with_the_jobs_and_the_recipes_arguments(timed, runner):
    timed(FAST, generator="mine.py:Mine", device="cuda:1")
    assert runner.calls[1].startswith(f"--data {timed.data} --out {timed.out}/.timing-")
    assert " --json --generator mine.py:Mine --device cuda:1 --recipe " in runner.calls[1]
    assert runner.calls[1].endswith("/runs/fast/fast.toml " + FAST.to_toml())


def test_the_baseline_is_added_where_no_recipe_is_it_under_whatever_name(timed):
    assert list(timed(FAST, rounds=1)) == ["baseline", "fast"]
    runs = timed(FAST, Recipe("mine"), rounds=1)
    assert list(runs) == ["fast", "mine"] and runs["mine"]["speed_ratio"] == 1


# The arithmetic


def test_the_noise_floor_is_the_shift_of_the_median_or_the_spread_of_rounds():
    assert noise_floor([2, 4], [2, 4]) == 0
    assert noise_floor([1.1, 2.2, 3.3], [1, 2, 3]) == pytest.approx(0.1)  # always a tenth
    assert noise_floor([0.8, 1, 1.2], [1, 1, 1]) == pytest.approx(0.2 * 1.4826)  # about 1, but scattered


def test_stages_are_means_and_the_rest_is_other():
    one = {"seconds": {"read": 1.0, "denoise": 4.0}, "total_seconds": 6.0}
    two = {"seconds": {"read": 2.0, "denoise": 5.0, "new": 1.0}, "total_seconds": 9.0}
    none = {"condition": 0, "decode": 0, "write": 0}
    assert stages([one, two]) == {"read": 1.5, "denoise": 4.5, "other": 1.5, **none}


def test_figures_are_over_videos_and_rounds():
    found = figures([outcome(10, a=1, b=2), outcome(12, a=3, b=4), outcome(14, a=5, b=6)])
    assert found["script_seconds"] == [10, 12, 14] and found["contest_seconds"] == 6
    assert found["seconds_per_video"] == {"p50": 3.5, "p90": 5.5}
    assert found["cold_start"] == 5  # of 7, 5 and 3
    assert found["videos"]["b"] == {"seconds": [2, 4, 6], "stages": stages(outcome(0, x=4).lines)}
    assert found["peak_memory_mb"] == 5  # less than this process has had


def test_a_video_that_a_round_did_not_make_has_no_times_and_divides_nothing():
    found = figures([outcome(9, a=1, b=2), outcome(4, a=3)])
    assert list(found["videos"]) == ["a"] and found["seconds_per_video"]["p50"] == 2
    assert found["contest_seconds"] == 4.25 and found["cold_start"] == 3.5  # of 4.5 and 4; of 6 and 1
    with pytest.raises(RunFailed, match="no video was made in every round"):
        figures([outcome(9, a=1), outcome(4, b=3)])


def test_a_run_has_what_the_report_shows(timed, runner):
    slow = iter([1.0, 1.0] + [1.0, 1.0, 2.0, 2.0] * 9)  # every other run of torch takes twice as long
    runner.seconds = lambda call, name: 0.1 if "openvino" in call else next(slow)
    runner.notes = {"a": ["a.png: 66% of it is cut away"]}
    runs = timed(BASE, FAST, rounds=1)
    fast, base = runs["fast"], runs["baseline"]
    assert (base["notes"], fast["notes"]) == (runner.notes, {})  # inputs are the same for all
    assert fast["speed_ratio"] == round(2.5 / 0.7, 4) and base["speed_ratio"] == 1
    assert fast["noise_floor"] == base["noise_floor"] == round(1 - 2.5 / 4.5, 4)
    assert fast["recipe"] == asdict(FAST)
    assert (fast["backend"], fast["folder"]) == ("openvino", str(timed.out / "fast"))
    assert fast["nondeterministic"] == [] and fast["failed"] == {} and fast["built"] == BUILT
    assert base["timing"]["build_seconds"] is None
    each = {**dict.fromkeys((*timing.STAGES, "other"), 0.01), "denoise": 0.05}
    assert fast["timing"] == {
        "script_seconds": [0.7], "contest_seconds": 0.35, "seconds_per_video": {"p50": 0.1, "p90": 0.1},
        "cold_start": 0.5, "stages": each, "repeat_ratio": 1.0, "repeat_saved": 0.0, "peak_memory_mb": 10**6,
        "gpu_memory_mb": None, "build_seconds": 3.8,
        "videos": {name: {"seconds": [0.1], "stages": each} for name in "ab"}}
    json.dumps(runs, allow_nan=False)


def test_a_video_that_fails_makes_no_recipe_fast(timed, runner):
    """Five videos in 5.5 s and one of five in 1.5 s are no 3.67 times the speed."""
    line = runner.line
    runner.line = lambda call, name, out: {"id": name, "status": "failed", "error": "no memory"} if (
        name == "b" and "openvino" in call) else line(call, name, out)
    runs = timed(BASE, FAST, rounds=2)
    assert runs["fast"]["speed_ratio"] is None and runs["baseline"]["speed_ratio"] == 1
    assert runs["fast"]["speed_unknown"] == (
        "its speed is no ratio: b failed in some runs, which took no time there")
    assert runs["baseline"]["speed_unknown"] is None and runs["baseline"]["noise_floor"] == 0


def test_where_the_baseline_fails_there_is_neither_a_ratio_nor_a_noise_floor(timed, runner):
    line = runner.line
    runner.line = lambda call, name, out: {"id": name, "status": "failed", "error": "no memory"} if (
        name == "b" and TWIN in call) else line(call, name, out)
    runs = timed(BASE, FAST, rounds=1)
    assert runs["fast"]["speed_ratio"] is not None and runs["fast"]["noise_floor"] is None
    runner.line = lambda call, name, out: {"id": name, "status": "failed", "error": "no memory"} if (
        name == "b" and "openvino" not in call) else line(call, name, out)
    assert timed(BASE, FAST, rounds=1)["fast"]["speed_ratio"] is None


def test_what_no_recipe_can_make_leaves_the_ratio(timed, runner):
    runner.broken = {"b": "b.mp4: is damaged"}
    fast = timed(BASE, FAST, rounds=1)["fast"]
    assert fast["speed_ratio"] == round(1.5 / 0.6, 4) and fast["speed_unknown"] is None


# What is noticed


def test_frames_that_differ_between_runs_are_reported():
    assert differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1"}]) == ["b"]


@pytest.mark.parametrize("where", ["runs/fast ", "repeat/out "], ids=["in a round", "made again"])
def test_a_recipe_that_does_not_repeat_its_frames_is_reported(timed, runner, where):
    runner.frames = lambda call, name: (
        str(len(runner.calls)) if "openvino" in call and where in call else "same")
    runs = timed(BASE, FAST, rounds=1)
    assert runs["baseline"]["nondeterministic"] == []
    assert runs["fast"]["nondeterministic"] == (["a", "b"] if "runs" in where else ["a"])


def test_a_baseline_whose_twin_makes_other_frames_is_reported(timed, runner):
    runner.frames = lambda call, name: str(TWIN in call)
    assert timed(BASE, rounds=1)["baseline"]["nondeterministic"] == ["a", "b"]


# What is kept, and how it fails


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_rounds_videos_are_kept_with_a_manifest_that_names_them(timed, runner):
    timed(BASE, FAST, rounds=2)
    assert names(timed.out) == ["baseline", "fast"]
    assert names(timed.out / "fast") == ["a.mp4", "b.mp4", "fast.toml", "infer.log", "manifest.jsonl"]
    call = next(i for i in reversed(range(len(runner.calls))) if "runs/fast " in runner.calls[i])
    assert (timed.out / "fast" / "a.mp4").read_text() == str(call + 1)
    lines = [json.loads(line) for line in (timed.out / "fast" / "manifest.jsonl").read_text().splitlines()]
    assert [(line["output"], line["recipe"]) for line in lines] == [
        (str(timed.out / "fast" / f"{name}.mp4"), "fast") for name in "ab"]
    assert (timed.out / "fast" / "infer.log").read_text().endswith(f"message 29 on {timed.out / 'fast'}\n")


def test_timing_again_replaces_what_timing_made_and_nothing_else(timed, runner):
    timed(BASE, rounds=1)
    (timed.out / "baseline" / "old.mp4").write_text("")
    timed(BASE, rounds=1)
    assert names(timed.out / "baseline") == ["a.mp4", "b.mp4", "baseline.toml", "infer.log", "manifest.jsonl"]
    (timed.out / "fast").mkdir()
    before = len(runner.calls)
    for recipe, mine in ((FAST, "mine.mp4"), (BASE, "notes.txt")):
        (timed.out / recipe.name / mine).touch()
        with pytest.raises(OutputError, match=f"{recipe.name} is there and was not made by timing a recipe"):
            timed(recipe, rounds=1)
        assert mine in names(timed.out / recipe.name)
    assert len(runner.calls) == before


def test_a_bad_request_is_reported_and_the_others_are_timed(timed, runner):
    runner.broken = {"a": "a.mp4: is damaged"}
    run = timed(BASE, rounds=1)["baseline"]
    assert run["failed"] == {"a": "a.mp4: is damaged"} and run["nondeterministic"] == []
    assert list(run["timing"]["videos"]) == ["b"] and run["timing"]["contest_seconds"] == 1.5
    assert names(timed.out / "baseline") == ["b.mp4", "baseline.toml", "infer.log", "manifest.jsonl"]


def stop_at(runner, number, error):
    def start(command, log):
        if len(runner.calls) == number:
            raise error
        return runner(command, log)
    return start


@pytest.mark.parametrize(("error", "shown", "text"), [
    (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    (RunFailed("fast: no", 4), RunFailed, "fast: no"),
    (OSError(28, "No space left on device"), OutputError, "No space left on device.*Check free space"),
], ids=["Ctrl-C", "failure", "full disk"])
def test_what_ends_the_timing_leaves_earlier_folders_and_no_part(timed, runner, error, shown, text):
    timed(BASE, rounds=1)
    content = (timed.out / "baseline" / "a.mp4").read_bytes()
    with pytest.raises(shown, match=text):
        timed(BASE, FAST, start=stop_at(runner, len(runner.calls) + 4, error))
    assert names(timed.out) == ["baseline"] and (timed.out / "baseline" / "a.mp4").read_bytes() == content


def test_what_cannot_be_timed_is_refused_before_anything_runs(timed, runner, tmp_path):
    with pytest.raises(RecipeError, match="two recipes are named 'fast'"):
        timed(FAST, Recipe("fast"))
    with pytest.raises(InputError, match="nowhere does not exist"):
        timed(BASE, data=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="rounds must be 1 or more, got 0"):
        timed(BASE, rounds=0)
    assert runner.calls == []
