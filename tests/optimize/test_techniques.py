"""The search of a technique's settings: how it walks, when it ends, what it keeps, the recipe it writes."""

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

import tune as script
from bench import similarity
from bench.quality_goal import Goal, Judged
from engines.artifact import built_folder
from engines.errors import InputError
from optimize.steps.tune import TuningJob
from optimize.steps.tuner import TuningError
from optimize.techniques import Search, TechniqueRuns, last_passing, tune_technique
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import Recipe, RecipeError, load_recipe
from pipeline.runner import VideoRunner
from tests.extractors import write_extractor

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"coarse": (1, 2, 3), "fine": (0.0, 0.1, 0.2, 0.3, 0.4)}
REQUESTS = [SimpleNamespace(id="a"), SimpleNamespace(id="b")]


class Runs:
    """What a search runs and judges: a video's PSNR falls by its settings; the first is hard on b alone."""

    def __init__(self, limit=0.25):
        self.limit, self.made = limit, []

    def run(self, settings, request):
        self.made.append((dict(settings), request.id))
        return Path(f"{request.id}.mp4"), 2.0 - settings["fine"] - settings["coarse"] / 10

    def judge(self, request, path):
        fine = self.made[-1][0]["fine"]
        return Judged(request.id, 0.99, 40.0 if fine <= self.limit or request.id == "a" else 20.0)


@pytest.fixture
def search(tmp_path):
    def make(runs, most=60, say=lambda text: None):
        return Search(REQUESTS, runs.run, runs.judge, tmp_path / "record.jsonl", say, most)
    return make


GOAL = Goal(0.97, 30.0)


def test_the_fastest_settings_that_pass_are_found_without_trying_all(search):
    runs = Runs()
    found = search(runs).fastest(SPACE, GOAL)
    assert found.best.settings == {"coarse": 3, "fine": 0.2} and found.complete
    tried = [tuple(each.settings.values()) for each in found.tried]
    assert len(tried) == len(set(tried)) < len(list(product(*SPACE.values())))
    assert tried[0] == (1, 0.2)  # the middle of the fine setting, at the gentlest coarse one
    assert [coarse for coarse, _ in tried] == sorted(coarse for coarse, _ in tried)


@pytest.mark.parametrize("count", range(1, 9))
def test_how_far_a_setting_can_go_is_found_for_every_end_and_start(count):
    for end, start in product(range(-1, count), range(count)):
        asked = []
        assert last_passing(lambda i: asked.append(i) or i <= end, count, start) == end  # noqa: B023
        assert all(0 <= i < count for i in asked)


def test_two_failures_in_a_row_end_the_walk_and_one_does_not():
    assert last_passing(lambda i: i in (0, 1, 2, 4), 8, 2) == 4
    assert last_passing(lambda i: i in (0, 1, 2, 5), 8, 2) == 2


def test_the_search_ends_at_the_limit_of_settings_and_says_so(search):
    found = search(Runs(), most=3).fastest(SPACE, GOAL)
    assert len(found.tried) == 3 and not found.complete


def test_the_first_video_that_fails_ends_a_trial_and_is_the_first_next_time(search):
    runs = Runs(limit=-1.0)
    found = search(runs).fastest({"coarse": (1,), "fine": (0.0, 0.1)}, GOAL)
    assert found.best is None and not any(each.passes for each in found.tried)
    assert [name for _, name in runs.made] == ["a", "b", *"b" * (len(found.tried) - 1)]


def test_settings_whose_numbers_are_not_finite_fail_and_the_search_goes_on(search):
    class Overflowing(Runs):
        def run(self, settings, request):
            if settings["fine"] > 0.1 and request.id == "b":
                raise FloatingPointError("latents are not finite")
            return super().run(settings, request)
    said = []
    found = search(Overflowing(), say=said.append).fastest(SPACE, GOAL)
    assert found.best.settings == {"coarse": 3, "fine": 0.1}
    assert any("b: latents are not finite" in text for text in said)


def test_a_search_goes_on_from_its_record_and_serves_another_goal(search, tmp_path):
    first = search(Runs()).fastest(SPACE, GOAL)
    record = tmp_path / "record.jsonl"
    record.write_text(record.read_text() + '{"settings": {"coarse"')  # cut off in the middle
    runs = Runs()
    again = search(runs).fastest(SPACE, GOAL)
    assert [each.settings for each in again.tried] == [each.settings for each in first.tried]
    assert again.best.settings == first.best.settings and runs.made == []
    looser = search(runs).fastest(SPACE, Goal(0.97, 10.0))
    assert looser.best.settings == {"coarse": 3, "fine": 0.4}
    known = {(tuple(each.settings.values()), video.id) for each in first.tried for video in each.videos}
    assert not known & {(tuple(settings.values()), name) for settings, name in runs.made}
    runs.made.clear()
    assert search(runs).fastest(SPACE, Goal(0.97, 10.0)) == looser and runs.made == []


# Real runs


@pytest.fixture
def data(make_data, tmp_path, monkeypatch, tiny, tiny_engines):
    """A data folder of two pairs with the tiny presenter's own videos."""
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    write_extractor(tmp_path / "extractors", "stfn")
    folder = make_data({"a": 5, "b": 4})
    with RunFolder(folder / "outputs") as out:
        runner = VideoRunner(tiny, tiny_engines)
        run_here(Jobs(find_requests(folder), out, runner.identity, lambda text: None), runner)
    return folder


def skipping(name="uniform-skip"):
    return Recipe("quick", technique=TechniqueChoice(name))


def test_the_recipe_that_is_written_has_the_settings_found_and_is_loaded_again(data, tiny_file, tmp_path):
    job, out, said = TuningJob(data, f"{tiny_file}:Tiny"), tmp_path / "quick.toml", []
    found = tune_technique(job, Goal(0.0), skipping(), out, said.append)
    recipe = load_recipe(out)
    assert recipe.technique == TechniqueChoice("uniform-skip", found.best.settings)
    assert "for tiny on 2 videos" in recipe.note and len(said) == len(found.tried)
    again = []
    same = tune_technique(job, Goal(0.0), skipping(), out, again.append)
    assert same.best.settings == found.best.settings and len(again) == len(said)
    kept = list(out.with_suffix(".tuning").glob("*.jsonl"))
    write_extractor(tmp_path / "extractors", "stfn", licence="of other weights")
    tune_technique(job, Goal(0.0), skipping(), out, again.append)
    assert len(list(out.with_suffix(".tuning").glob("*.jsonl"))) == len(kept) + 1, "another judge"


@pytest.mark.parametrize("change", ["a second picture", "a column", "the seed", "the video"])
def test_verdicts_are_not_those_of_other_inputs(data, tiny, tmp_path, change):
    def identity(prompt="glad", seed=1):
        (data / "pairs.csv").write_text("id,video,image,seed,image2,prompt\n"
                                        f"a,a.mp4,a.png,{seed},b.png,{prompt}\n")
        runs = TechniqueRuns(skipping(), tiny, TuningJob(data), tmp_path / "videos")
        return runs.identity(find_requests(data).requests)

    before = identity()
    assert identity() == before
    place = {"a second picture": "images/b.png", "the video": "videos/a.mp4"}.get(change)
    if place:
        (data / place).write_bytes((data / place).read_bytes() + b"another")
    assert identity("sad" if "column" in change else "glad", 2 if "seed" in change else 1) != before


def test_a_record_has_ids_that_are_no_text(tmp_path):
    request, space = SimpleNamespace(id="\udccba"), {"coarse": (1,), "fine": (0.0,)}
    for made in (1, 0):
        runs = Runs()
        found = Search([request], runs.run, lambda request, path: Judged(request.id, 0.99, 40.0),
                       tmp_path / "record.jsonl", lambda text: None).fastest(space, GOAL)  # fmt: skip
        assert len(runs.made) == made and found.best.videos[0].id == "\udccba"


def test_hooks_are_attached_anew_for_other_settings(data, tiny_file, tmp_path):
    job, out = TuningJob(data, f"{tiny_file}:Tiny"), tmp_path / "pyramid.toml"
    found = tune_technique(job, Goal(0.0), skipping("pyramid-attention"), out, lambda text: None, most=2)
    assert len(found.tried) == 2 and not found.complete and "limit" in load_recipe(out).note


def test_where_nothing_passes_no_recipe_is_written(data, tiny_file, tmp_path):
    job, out = TuningJob(data, f"{tiny_file}:Tiny"), tmp_path / "quick.toml"
    for name in "ab":  # the base model's videos of other requests
        (data / "outputs" / f"{name}.mp4").rename(data / f"{name}.mp4")
    shutil.copy(data / "a.mp4", data / "outputs" / "b.mp4")
    shutil.copy(data / "b.mp4", data / "outputs" / "a.mp4")
    with pytest.raises(TuningError, match="none of .* settings of uniform-skip keeps to the goal"):
        tune_technique(job, Goal(0.97, 90.0), skipping(), out, lambda text: None)
    assert not out.exists()


def test_without_the_base_models_videos_the_message_says_how_to_make_them(data, tiny_file, tmp_path):
    (data / "outputs" / "a.mp4").unlink()
    with pytest.raises(InputError, match="lacks the base model's videos of a; make them"):
        tune_technique(TuningJob(data, f"{tiny_file}:Tiny"), Goal(), skipping(), tmp_path / "x.toml", print)


def test_the_script_finds_settings_of_a_technique(data, tiny_file, tmp_path, monkeypatch, capsys):
    out = tmp_path / "quick.toml"
    arguments = ["--technique", "uniform-skip", "--data", data, "--generator", f"{tiny_file}:Tiny",
                 "--similarity", "0", "--most", "5", "--out", out, "--json"]
    monkeypatch.setattr(sys, "argv", ["tune.py", *map(str, arguments)])
    assert script.main() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["recipe"] == str(out) and printed["runs"] == 2 and len(printed["videos"]) == 2
    assert load_recipe(out).technique.name == "uniform-skip" and not built_folder("tiny").exists()


def test_plans_are_not_tuned_from_a_recipe_with_a_technique(tmp_path, monkeypatch, capsys):
    start = tmp_path / "start.toml"
    start.write_text(skipping().to_toml())
    monkeypatch.setattr(sys, "argv", ["tune.py", "--start", str(start), "--out", str(tmp_path / "a.toml")])
    assert script.main() == RecipeError.exit
    assert "plans are tuned without; see --technique" in capsys.readouterr().err


def test_the_techniques_are_listed_with_the_values_to_try():
    answer = subprocess.run([sys.executable, "-m", "pipeline.caches", "list"], cwd=ROOT, capture_output=True,
                            text=True)
    assert answer.returncode == 0, answer.stderr
    assert "teacache: Liu et al." in answer.stdout and "  threshold: 0.0, 0.02" in answer.stdout
