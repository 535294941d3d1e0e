"""Tuning on a real data folder with the tiny presenter: what is written runs, and is what was measured."""

import shutil
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tune as script
from bench import similarity
from bench.quality_goal import Goal, Judged
from engines.backends.torch_backend import TorchEngine
from engines.errors import FolderError, InputError
from generators.contract import load_generator
from optimize.steps.tune import TuningJob, judge_of, tune_folder
from optimize.steps.tuning_runner import CODE, TuningRunner
from optimize.techniques import tune_technique
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import BASELINE, Recipe, load_recipe
from pipeline.request import Options, Source
from pipeline.runner import VideoRunner
from pipeline.sampler import Sampler
from pipeline.step_plan import StepPlan
from tests.extractors import write_extractor
from tests.pipeline.test_output_form import BY_VIDEO

PLAIN = Recipe("plain")


@pytest.fixture
def data(make_data, tmp_path, monkeypatch, tiny, tiny_engines):
    """A data folder of two pairs with the tiny presenter's own videos."""
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    folder = make_data({"a": 17, "b": 20})
    make_all(folder, folder / "outputs", VideoRunner(tiny, tiny_engines))
    return folder


def make_all(data, out, maker):
    """The videos of a data folder, as infer.py makes them."""
    with RunFolder(out) as folder:
        run_here(Jobs(find_requests(data), folder, maker.identity, lambda text: None), maker)


@pytest.fixture
def tuning_runner(data, tiny, tmp_path):
    """A tuning runner on that folder; its judge keeps the videos' bytes."""
    made = {}

    def judge(request, path):
        made[request.id] = path.read_bytes()
        return Judged(request.id, 0.99, 40.0)

    bench = TuningRunner(find_requests(data).requests, tiny, "cpu", tmp_path / "work", judge)
    yield bench, made
    bench.close()


@pytest.mark.slow
def test_the_base_run_that_is_captured_is_the_one_that_infer_makes(tuning_runner, tiny, tiny_engines):
    bench, _ = tuning_runner
    assert [gram.steps for gram in bench.capture(lambda text: None)] == [2, 2]
    for case in bench.clips:
        with Source(case.request, tiny) as source:
            constants = tiny.condition(tiny_engines, source, source.image)
        walk = Sampler(tiny, tiny_engines).sample(constants, case.frames, 42)
        np.testing.assert_array_equal(case.base(2)[:, :, :case.frames], walk.latents)


@pytest.mark.slow
def test_captured_runs_are_found_again_and_those_of_another_seed_are_not(
        tuning_runner, tiny, tmp_path, monkeypatch):
    bench, _ = tuning_runner
    first = bench.capture(lambda text: None)
    monkeypatch.setattr(TorchEngine, "__call__", lambda *a, **k: pytest.fail("a base run was made again"))
    requests = [case.request for case in bench.clips]
    again = TuningRunner(requests, tiny, "cpu", tmp_path / "work", None)
    for one, other in zip(again.capture(None), first, strict=True):
        np.testing.assert_array_equal(one.products, other.products)
    monkeypatch.undo()
    for damaged in (b"", b"PK\3\4cut"):
        (again.clips[0].folder / "products.npz").write_bytes(damaged)
        np.testing.assert_array_equal(again.capture(print)[0].products, first[0].products)
    again.close()
    other = [type(each)(each.id, each.video, each.image, 7) for each in requests]
    assert TuningRunner(other, tiny, "cpu", tmp_path / "work", None).identity != bench.identity


def test_an_edit_of_a_wrapper_that_changes_no_network_makes_base_runs_anew(data, tmp_path):
    def identity(guidance):
        (tmp_path / "mine.py").write_text(
            f"from examples.my_generator import MyGenerator as Example\n\n\nclass Mine(Example):\n"
            f"    guidance = {guidance}\n    fingerprint_files = Example.fingerprint_files[1:]\n")
        mine = load_generator(f"{tmp_path / 'mine.py'}:Mine")
        return TuningRunner(find_requests(data).requests, mine, "cpu", tmp_path / "work", None).identity

    assert identity(2.0) == identity(2.0) != identity(2.25)


def test_recipes_share_engines_only_where_all_of_their_choice_is_the_same(tiny, tmp_path, monkeypatch):
    started = []

    def start(generator, choice, say):
        started.append((choice.backend, choice.attention, choice.precisions["denoise"]))
        return choice.backend, {}

    monkeypatch.setattr("optimize.steps.tuning_runner.start_engines", start)
    bench = TuningRunner([], tiny, "cpu", tmp_path, None)
    for change in ({}, {"preset": "medium"}, {"attention": "sage"}, {"precision": "bf16"}):
        bench._engines(replace(Recipe("a", "torch"), **change), print)
    assert started == [("torch", "default", "fp32"), ("torch", "sage", "fp32"), ("torch", "default", "bf16")]


def test_how_plans_run_is_by_all_schedulers_and_window_rules():
    rules = {"samplers", "diffusion_grids", "windows", "uniform_windows"}
    assert {f"{name}.py" for name in rules} <= {path.name for path in CODE if path.is_file()}


@pytest.mark.slow
def test_a_fitted_recipe_makes_in_a_real_run_what_was_judged(
        tuning_runner, data, tiny, tiny_engines, tmp_path):
    bench, made = tuning_runner
    bench.capture(lambda text: None)
    plan = StepPlan("FS", overlaps=(0,))
    fitted, videos = bench.run(Recipe("short", steps=plan, overlap=2), lambda text: None)
    assert [video.id for video in videos] == ["a", "b"] and fitted.steps.guard.videos == 2
    left_out = dict(made)
    bench.run(fitted, lambda text: None)
    out = tmp_path / "out"
    make_all(data, out, VideoRunner(fitted.adapt(tiny), tiny_engines, Options(fitted)))
    for name in "ab":
        assert (out / f"{name}.mp4").read_bytes() == made[name]
    assert made.keys() == left_out.keys() and made != left_out
    for judged in ["ab", "b"]:
        _, videos = bench.run(fitted, lambda text: None, lambda videos: videos[-1].id == "b")
        assert "".join(video.id for video in videos) == judged


@pytest.mark.slow
def test_costs_are_of_a_window_and_two_branches_cost_more_than_one(tuning_runner, monkeypatch):
    engines = tuning_runner[0]._engines(BASELINE, print)

    def slow(**arrays):
        time.sleep(0.02)  # beside which what else the machine does is little
        return engines["denoise"](**arrays)
    monkeypatch.setattr(tuning_runner[0], "_engines", lambda *given: {**engines, "denoise": slow})
    costs = tuning_runner[0].costs(BASELINE, print)
    assert costs.full > costs.cheap["C"] > 0
    assert tuning_runner[0].windows(BASELINE) == 2 + 2
    assert tuning_runner[0].windows(Recipe("x", overlap=12)) == 2 + 2
    bench, plan = tuning_runner[0], StepPlan("FC", overlaps=(15,))
    assert bench.windows(Recipe("x", steps=plan)) == pytest.approx(((2 + 5) * 2 + (2 + 2)) / 3)


@pytest.mark.slow
def test_videos_are_tuned_at_the_size_and_rate_that_infer_gives_them(
        make_data, make_image_file, tmp_path, monkeypatch):
    """A wrapper with output_size and output_fps, windows that do not overlap, and an odd rate."""
    text = BY_VIDEO.replace("OverlapWindows(4, 1)", "OverlapWindows(4, 0)")
    (tmp_path / "mine.py").write_text(text)
    data, name = make_data({"a": 6}), f"{tmp_path / 'mine.py'}:Mine"
    make_image_file(data / "images" / "wide.png", (60, 40))
    lines = "id,video,image,size,rate", "a,a.mp4,a.png,,12", "wide,a.mp4,wide.png,,", "b,a.mp4,a.png,40x32,"
    (data / "pairs.csv").write_text("\n".join(lines) + "\n")
    mine, made = load_generator(name), data / "outputs"
    engines = {each: TorchEngine(spec, mine.build(each)) for each, spec in mine.components.items()}
    make_all(data, made, VideoRunner(mine, engines))

    def judge(request, path):
        assert path.read_bytes() == (made / path.name).read_bytes()
        return Judged(request.id, 1.0, 40.0)

    runner = TuningRunner(find_requests(data).requests, mine, "cpu", tmp_path / "work", judge)
    with closing(runner):
        assert [gram.steps for gram in runner.capture(print)] == [2] * 3
        assert len(runner.run(Recipe("base", "torch"), print)[1]) == 3
        runner.judge = lambda request, path: Judged(request.id, 1.0, 40.0)
        assert runner.run(Recipe("short", "torch", steps=StepPlan("FS")), print)[0].steps.guard.videos == 3
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    job = TuningJob(data, name, extractors=("grid",))
    tuned = tune_folder(job, Goal(0.5), [Recipe("plain", "torch")], tmp_path / "fast.toml", print)
    assert tuned.best.recipe.steps


@pytest.mark.slow
def test_a_folder_is_tuned_and_the_second_time_nothing_is_run_again(data, tiny_file, tmp_path):
    job = TuningJob(data, f"{tiny_file}:Tiny", extractors=("grid",), overlaps=(0,))
    out = tmp_path / "fast.toml"
    tuned = tune_folder(job, Goal(0.5), [PLAIN], out, lambda text: None)
    recipe = load_recipe(out)
    assert recipe.steps == tuned.best.recipe.steps and recipe.note.startswith("Tuned for tiny on 2 videos")
    assert tuned.runs > 0
    with Image.open(tmp_path / "fast.tuning" / "trials.png") as picture:
        assert picture.size == (960, 840)
    again = tune_folder(job, Goal(0.5), [PLAIN], out, lambda text: None)
    assert again.runs == 0 and again.best.recipe.steps == tuned.best.recipe.steps
    write_extractor(tmp_path / "extractors", licence="of other weights")
    assert tune_folder(job, Goal(0.5), [PLAIN], out, lambda text: None).runs > 0, "another judge"


def test_two_searches_do_not_share_a_folder_whose_videos_they_would_write_over(data, tiny_file, tmp_path):
    job, out = TuningJob(data, f"{tiny_file}:Tiny", extractors=("grid",)), tmp_path / "fast.toml"
    with RunFolder(tmp_path / "fast.tuning"):
        with pytest.raises(FolderError, match=r"fast\.tuning: is in use by process"):
            tune_folder(job, Goal(0.5), [PLAIN], out, lambda text: None)
        with pytest.raises(FolderError, match=r"fast\.tuning: is in use by process"):
            chosen = replace(PLAIN, technique=TechniqueChoice("uniform-skip", {}))
            tune_technique(job, Goal(0.5), chosen, out, lambda text: None)
    assert not out.exists()


def test_missing_base_videos_are_named_with_the_command_that_makes_them(data, tmp_path):
    (data / "outputs" / "b.mp4").unlink()
    job, command = TuningJob(data, "my file.py:My"), "python infer.py --generator 'my file.py:My' --data "
    words = f"lacks the base model's videos of b; make them: {command}{data} --out "
    with pytest.raises(InputError, match=f"{words}{data / 'outputs'}$"):
        judge_of(job, find_requests(data).requests)
    (data / "outputs" / "manifest.jsonl").unlink()  # as a contest's are: nobody is told to write over them
    with pytest.raises(InputError, match=f"{words}out/base, and copy those that are missing to "):
        judge_of(job, find_requests(data).requests)
    shutil.rmtree(data / "outputs")
    with pytest.raises(InputError, match="outputs does not exist"):
        tune_folder(TuningJob(data), Goal(), [PLAIN], tmp_path / "x.toml", lambda text: None)


@pytest.mark.parametrize(("arguments", "reason"), [
    (("--out", "fast.json"), "--out must end in .toml"),
    (("--out", "fast.toml", "--similarity", "1.5"), "similarity must be at least 0 and below 1"),
    (("--out", "fast.toml", "--start", "nothing.toml"), "nothing.toml: cannot be read"),
    ((), "--out"),
])
def test_a_command_line_that_makes_no_sense_is_status_2(run_main, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    answer = run_main(script, *arguments)
    assert answer.status == 2 and reason in answer.err
