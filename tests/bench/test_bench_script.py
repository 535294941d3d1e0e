"""python -m bench as people run it: verdicts, exit statuses, and what is on stdout and in the report."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bench import __main__ as script
from bench import similarity
from bench.verdict import Question, exit_status, run_entry
from tests.clips import picture_frames, write
from tests.extractors import write_extractor

ROOT = Path(__file__).resolve().parents[2]
TIMING = {"contest_seconds": 5.0, "repeat_ratio": 1.0, "repeat_saved": 0.0}
ALIKE = {"id": "a", "status": "judged", "error": None, "passes": True, "checks": [],
         "cosine": {"grid": {"value": 0.99, "passes": True}}}


@pytest.fixture
def data(make_data, tmp_path, monkeypatch):
    """A data folder of two pairs with references, and a folder of equal candidates beside it."""
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    folder = make_data({"a": 3, "b": 3})
    (folder / "outputs").mkdir()
    for name in "ab":
        write(folder / "outputs" / f"{name}.mp4", picture_frames(6, 96, 64))
    shutil.copytree(folder / "outputs", tmp_path / "candidate")
    return folder


@pytest.fixture
def bench(run_main, data, tmp_path):
    """A function that runs the script on that data: status, stdout, stderr."""
    return partial(run_main, script, "--data", data, "--extractors", "grid", "--out", tmp_path / "report")


def test_equal_videos_pass_and_the_report_is_written(bench, tmp_path):
    answer = bench("--candidate", tmp_path / "candidate")
    assert answer.status == 0, answer.err
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == ["index.html", "report.json", "report.md"]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    verdict = report["runs"][0]["verdict"]
    assert verdict["passes"] and verdict["similarity"] == pytest.approx(1) and verdict["speed_ratio"] is None
    assert answer.out == (tmp_path / "report" / "report.md").read_text()


def test_json_puts_the_report_on_stdout(bench, tmp_path):
    answer = bench("--candidate", tmp_path / "candidate", "--json")
    assert json.loads(answer.out) == json.loads((tmp_path / "report" / "report.json").read_text())


def test_a_changed_and_a_missing_video_are_status_5_with_reasons_and_the_other_is_judged(bench, tmp_path):
    (tmp_path / "candidate" / "b.mp4").unlink()
    answer = bench("--candidate", tmp_path / "candidate")
    assert answer.status == 5 and "a: passes" in answer.err
    assert "b: no video of that name in" in answer.err
    write(tmp_path / "candidate" / "b.mp4", [255 - frame for frame in picture_frames(6, 96, 64)])
    answer = bench("--candidate", tmp_path / "candidate")
    assert answer.status == 5 and "b: similarity (grid) " in answer.err


def test_missing_folders_are_status_3_and_an_unknown_extractor_is_status_4(bench, data, tmp_path):
    assert "none does not exist" in bench("--candidate", tmp_path / "none").err
    assert bench("--candidate", tmp_path / "none").status == 3
    shutil.rmtree(data / "outputs")
    assert bench("--candidate", tmp_path / "candidate").status == 3
    answer = bench("--candidate", tmp_path / "candidate", "--extractors", "clip")
    assert answer.status == 4 and "no extractor 'clip'; there are grid" in answer.err


@pytest.mark.parametrize("option", ["--base-again", "--other-seed"])
def test_the_reference_is_no_scale_for_itself(bench, data, tmp_path, option):
    answer = bench("--candidate", tmp_path / "candidate", option, data / "videos" / ".." / "outputs")
    assert answer.status == 2 and "outputs is the reference itself, not " in answer.err


def test_candidates_and_recipes_at_once_or_none_are_a_usage_error(bench, tmp_path):
    assert bench().status == 2
    assert bench("--candidate", tmp_path, "--recipes", tmp_path / "a.toml").status == 2
    for threshold in ("nan", "inf", "0", "-3"):
        answer = bench("--recipes", tmp_path / "a.toml", "--time-threshold", threshold)
        assert answer.status == 2 and "must be a number above 0" in answer.err
    answer = bench("--candidate", tmp_path, "--time-threshold", "5")
    assert answer.status == 2 and "finished videos were not timed" in answer.err


def test_a_recipe_with_a_mistake_is_status_2_before_anything_runs(bench, tmp_path):
    (tmp_path / "fast.toml").write_text('bakend = "torch"\n')
    answer = bench("--recipes", tmp_path / "fast.toml")
    assert answer.status == 2 and "did you mean 'backend'" in answer.err


@pytest.mark.parametrize(("seconds", "repeat", "status", "score"), [
    (5.0, 1.0, 0, 65.0), (10.5, 1.0, 6, 30.0), (5.0, 0.5, 5, 65.0)])
def test_a_slow_run_is_status_6_and_one_that_keeps_results_status_5(seconds, repeat, status, score, tmp_path):
    question = Question(tmp_path, tmp_path, ["grid"], threshold=10)
    timing = {"contest_seconds": seconds, "repeat_ratio": repeat, "repeat_saved": 4 * (1 - repeat)}
    run = run_entry("fast", tmp_path, [ALIKE], question, {"timing": timing, "speed_ratio": 2.0})
    assert exit_status([run]) == status and run["verdict"]["score"] == score
    assert run["verdict"]["passes"] == (status == 0) == (not run["verdict"]["reasons"])


def test_without_a_threshold_there_is_no_score_and_no_time_gate(tmp_path):
    question = Question(tmp_path, tmp_path, ["grid"])
    run = run_entry("fast", tmp_path, [ALIKE], question, {"timing": TIMING, "speed_ratio": 2.0})
    assert run["verdict"]["score"] is None and run["verdict"]["passes"]


def test_what_timing_found_out_is_in_a_runs_entry(tmp_path):
    found = {"recipe": {"note": "x"}, "backend": "torch", "built": {}, "nondeterministic": ["b"],
             "guard_fired": {"b": ["unlike"]}, "notes": {"a": ["cut away"]}, "failed": {"c": "bad"}}
    measured = {"timing": TIMING, "speed_ratio": 2.0, **found}
    run = run_entry("fast", tmp_path, [ALIKE], Question(tmp_path, tmp_path, ["grid"]), measured)
    assert {key: run[key] for key in found} == found
    assert run_entry("out", tmp_path, [ALIKE], Question(tmp_path, tmp_path, ["grid"]))["failed"] is None


def test_the_load_is_that_from_before_the_work(bench, tmp_path, monkeypatch):
    loads = iter([(0.126, 2.0, 3.0)] + [(99.0, 99.0, 99.0)] * 9)
    monkeypatch.setattr(os, "getloadavg", lambda: next(loads))
    bench("--candidate", tmp_path / "candidate")
    machine = json.loads((tmp_path / "report" / "report.json").read_text())["machine"]
    assert machine["load_average"] == [0.13, 2.0, 3.0] and machine["cpus"] == os.cpu_count()


def test_another_video_outranks_slowness():
    verdicts = [{"alike": True, "in_time": False}, {"alike": False, "in_time": True}]
    assert exit_status([{"verdict": verdict} for verdict in verdicts]) == 5


def test_an_unreadable_report_is_status_2(run_main, tmp_path):
    (tmp_path / "old.json").write_text("[")
    for name in ("old.json", "none.json"):
        answer = run_main(script, "compare", tmp_path / name, tmp_path / "old.json")
        assert answer.status == 2 and name in answer.err


def test_an_open_clip_checkpoint_that_is_not_there_is_status_4(run_main, tmp_path):
    answer = run_main(script, "extractor", "export", "--open-clip", "ViT-B-32",
                      "--checkpoint", tmp_path / "none.pt", "--out", tmp_path)
    assert answer.status == 4 and "no checkpoint at" in answer.err


def test_help_names_the_commands():
    command = [sys.executable, "-m", "bench", "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0
    assert all(command in answer.stdout for command in script.COMMANDS)
