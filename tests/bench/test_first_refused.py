"""What cannot end well is refused before the work: places that cannot be written, numbers without sense."""

import pytest

import tune
from bench import __main__ as bench
from bench import demo
from bench.timed_run import Job
from bench.timing import time_recipes
from engines.errors import InputError
from pipeline.batch.dataset import first_requests
from pipeline.caches import __main__ as caches


@pytest.fixture
def never(monkeypatch):
    """Have all that takes long end the test instead."""
    def fail(*arguments, **options):
        pytest.fail("the work has begun")
    for module, name in ((bench, "time_recipes"), (bench, "judge_folder"), (bench, "compare_ways"),
                         (bench, "draw_waterfall"), (demo, "_run"), (caches, "calibrate")):
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr("optimize.steps.tune.judge_of", fail)
    monkeypatch.setattr("optimize.techniques.judge_of", fail)


@pytest.fixture
def file(tmp_path):
    """A file, in which nothing can be written to."""
    path = tmp_path / "r.toml"
    path.write_text("")
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder where a file should go."""
    path = tmp_path / "dir.toml"
    path.mkdir()
    return path


@pytest.mark.parametrize("what", ["candidate", "recipes", "demo"])
def test_a_place_that_cannot_be_written_is_refused_first(run_main, never, file, tmp_path, what):
    arguments = {"candidate": ["--candidate", tmp_path], "recipes": ["--recipes", file], "demo": ["demo"]}
    answer = run_main(bench, *arguments[what], "--out", file / "x")
    assert answer.status == 2 and f"cannot write to the output folder {file / 'x'}" in answer.err


@pytest.mark.parametrize("name", ["index.html", "report.md", "report.json"])
def test_a_folder_where_a_file_of_the_report_goes_is_refused_first(run_main, never, file, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    answer = run_main(bench, "--recipes", file, "--out", tmp_path / "out")
    assert answer.status == 2 and f"{name} is a folder, and a file is to be written there" in answer.err


@pytest.mark.parametrize("technique", [[], ["--technique", "uniform-skip"]], ids=["plans", "technique"])
def test_tune_refuses_a_place_for_the_recipe_first(run_main, never, file, folder, technique):
    answer = run_main(tune, *technique, "--out", folder)
    assert answer.status == 2 and f"{folder} is a folder, and a file is to be written there" in answer.err
    answer = run_main(tune, *technique, "--out", file / "fast.toml")
    assert answer.status == 2 and f"cannot write to the output folder {file}" in answer.err


@pytest.mark.parametrize("command", [["backends", "--report"], ["waterfall", "report.json", "--out"]])
def test_a_folder_where_a_file_goes_is_refused_first(run_main, never, folder, command):
    answer = run_main(bench, *command, folder)
    assert answer.status == 2 and "is a folder, and a file is to be written there" in answer.err


@pytest.mark.parametrize("arguments", [
    ["--recipes", "a.toml", "--rounds"], ["--candidate", "a", "--rounds"], ["backends", "--rounds"],
    ["backends", "--frames"]], ids=" ".join)
@pytest.mark.parametrize("number", [0, -1])
def test_numbers_that_mean_nothing_are_usage_errors(run_main, never, arguments, number):
    answer = run_main(bench, *arguments, number)
    assert answer.status == 2 and f"{arguments[-1]} must be above 0, got {number}" in answer.err


def test_no_video_is_none_to_calibrate_with(run_main, never):
    answer = run_main(caches, "calibrate", "--videos", 0)
    assert answer.status == 2 and "--videos must be above 0, got 0" in answer.err


# Data without a pair


@pytest.fixture
def unpaired(make_data, tmp_path):
    """A data folder in which no picture has a video's name."""
    data = make_data({"a": 2, "b": 2})
    for name in "ab":
        (data / "images" / f"{name}.png").rename(data / "images" / f"{name} of another.png")
    return data


@pytest.mark.parametrize(("script", "arguments"), [
    (tune, []), (tune, ["--technique", "uniform-skip"]), (bench, ["demo"])],
    ids=["plans", "technique", "demo"])
def test_data_without_a_pair_is_bad_input_with_the_reason(run_main, never, unpaired, tmp_path, script,
                                                          arguments):
    answer = run_main(script, *arguments, "--data", unpaired, "--out", tmp_path / "new.toml")
    assert answer.status == 3 and "has its image: " in answer.err and "a.mp4 has no image" in answer.err


def test_data_without_a_pair_is_not_timed(unpaired, tmp_path):
    with pytest.raises(InputError, match="no video in .* has its image: .*a.mp4 has no image"):
        time_recipes([], Job(unpaired, tmp_path / "out"), print)


def test_what_has_no_pair_is_named_where_others_have(make_data):
    data, said = make_data({"a": 2, "b": 2}), []
    (data / "images" / "b.png").unlink()
    (data / "images" / "c.png").write_bytes((data / "images" / "a.png").read_bytes())
    assert [each.id for each in first_requests(data, say=said.append)] == ["a"]
    assert [text.partition(" has no ")[0] for text in said] == [
        f"note: left out: {data / 'videos' / 'b.mp4'}", f"note: left out: {data / 'images' / 'c.png'}"]
