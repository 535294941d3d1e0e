"""A video that is judged without its skeleton says so; one whose skeleton cannot be read is bad input."""

import json
import shutil
from functools import partial

import pytest

from bench import __main__ as script
from bench import similarity
from bench.checks import LIMITS, NEED_SKELETON
from bench.judge import Judge, judge_folder
from bench.score import level_of
from bench.verdict import Question, exit_status, run_entry
from bench.video_folders import Folders
from engines.cli import SAMPLE
from tests.clips import picture_frames, write
from tests.extractors import write_extractor

LEFT_OUT = "judged without a skeleton video, as --data has none of that name: "


@pytest.fixture
def data(make_data, tmp_path, monkeypatch):
    """A data folder of two pairs with references, and a folder of equal candidates beside it."""
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    folder = make_data({"ada": 6, "bob": 6})
    for place in (folder / "outputs", tmp_path / "candidate"):
        place.mkdir()
        for name in ("ada", "bob"):
            write(place / f"{name}.mp4", picture_frames(6, 96, 64))
    return folder


@pytest.fixture
def bench(run_main, data, tmp_path):
    """A function that judges the candidates: status, stdout, stderr, the report's one run."""
    def run(*arguments):
        answer = run_main(script, "--candidate", tmp_path / "candidate", "--extractors", "grid",
                          "--out", tmp_path / "report", *arguments)
        path = tmp_path / "report" / "report.json"
        answer.run = json.loads(path.read_text())["runs"][0] if path.exists() else None
        return answer
    return run


def test_those_are_the_checks_that_ask_for_a_skeleton():
    assert set(NEED_SKELETON) == {
        "structure_hands", "structure_face", "colour_hands", "colour_face",
        "control_loss", "control_arms_loss", "control_arms_error"} < set(LIMITS)


def test_with_its_skeleton_a_video_has_no_remark_and_a_level(bench, data):
    answer = bench("--data", data)
    assert answer.status == 0 and answer.run["remarks"] == [] and LEFT_OUT not in answer.out
    assert [each["unchecked"] for each in answer.run["videos"]] == [[], []]
    assert level_of(answer.run) == "exact"


def test_without_its_skeleton_a_video_names_the_checks_left_out_and_has_no_level(bench, data, tmp_path):
    (data / "videos" / "bob.mp4").unlink()
    answer = bench("--data", data)
    assert answer.status == 0 and answer.run["verdict"]["passes"]
    (remark,) = answer.run["remarks"]
    assert remark.startswith(f"{LEFT_OUT}bob. ") and all(name in remark for name in NEED_SKELETON)
    assert "no level is given" in remark and level_of(answer.run) is None
    row = next(line for line in answer.out.splitlines() if line.startswith("| candidate |"))
    assert row.endswith("| passes | – |") and f"- candidate: {LEFT_OUT}bob. " in answer.out
    assert LEFT_OUT in (tmp_path / "report" / "index.html").read_text()
    assert [each["unchecked"] for each in answer.run["videos"]] == [[], list(NEED_SKELETON)]


def test_many_names_are_counted():
    lines = [{"id": f"v{i}", "status": "judged", "error": None, "passes": True, "unchecked": ["x"]}
             for i in range(10)]
    question = Question(SAMPLE, SAMPLE, ["grid"])
    assert ", v7, and 2 more. These" in run_entry("out", SAMPLE, lines, question)["remarks"][0]


def test_the_bundled_samples_skeletons_are_not_those_of_other_peoples_videos(bench, data):
    assert (SAMPLE / "videos" / "ada.mp4").is_file()
    answer = bench("--reference", data / "outputs")
    assert answer.status == 0 and f"{LEFT_OUT}ada, bob. " in answer.out
    assert all(each["unchecked"] for each in answer.run["videos"])


@pytest.mark.parametrize("asked", ["the sample's own videos", "the sample as --data", "recipes"])
def test_the_bundled_samples_skeletons_are_for_its_own_videos_and_where_asked_for(asked, tmp_path):
    arguments = {"the sample's own videos": ["--candidate", tmp_path],
                 "the sample as --data": ["--candidate", tmp_path, "--data", str(SAMPLE)],
                 "recipes": ["--recipes", tmp_path / "a.toml"]}[asked]
    args = script.parse(["judge", *map(str, arguments)])
    reference = SAMPLE / "outputs" if "own" in asked else tmp_path
    assert script.skeletons_of(args, reference)["ada"] == SAMPLE / "videos" / "ada.mp4"
    assert script.skeletons_of(script.parse(["judge", "--candidate", "c"]), tmp_path) == {}


@pytest.mark.parametrize("damaged", ["videos/ada.mp4", "outputs/ada.mp4"])
def test_a_skeleton_or_a_reference_that_cannot_be_read_is_bad_input(bench, data, damaged):
    (data / damaged).write_bytes(b"\0" * 5000)
    answer = bench("--data", data)
    ada, bob = answer.run["videos"]
    assert answer.status == 3 and damaged in ada["error"] and ada["bad_input"] and bob["passes"]
    assert not answer.run["verdict"]["passes"]


def test_a_candidate_that_cannot_be_read_or_differs_is_no_bad_input(bench, data, tmp_path):
    (data / "videos" / "ada.mp4").write_bytes(b"\0" * 5000)
    write(tmp_path / "candidate" / "bob.mp4", [255 - frame for frame in picture_frames(6, 96, 64)])
    assert bench("--data", data).status == 5
    (tmp_path / "candidate" / "bob.mp4").write_bytes(b"\0" * 5000)
    answer = bench("--data", data)
    assert answer.status == 5 and [each["bad_input"] for each in answer.run["videos"]] == [True, False]


def test_a_run_that_is_not_alike_outranks_one_with_bad_input():
    bad, unlike = {"alike": False, "bad_input": True, "in_time": True}, {"alike": False, "in_time": True}
    assert exit_status([{"verdict": bad}]) == 3
    assert exit_status([{"verdict": bad}, {"verdict": unlike}]) == 5


# The folders themselves


def test_the_reference_is_no_candidate_and_the_candidate_no_scale(run_main, data, tmp_path):
    run = partial(run_main, script, "--data", data, "--extractors", "grid", "--out", tmp_path / "report")
    (tmp_path / "link").symlink_to(data / "outputs")
    for same in (data / "outputs", tmp_path / "link"):
        answer = run("--candidate", same)
        assert answer.status == 2 and f"{same} is the reference itself, not the candidate; " in answer.err
    for option in ("--base-again", "--other-seed"):
        answer = run("--candidate", tmp_path / "candidate", option, tmp_path / "candidate")
        assert answer.status == 2 and "is the candidate itself, not " in answer.err
    assert not (tmp_path / "report").exists()


def test_references_may_not_lie_where_timed_videos_go(run_main, data, tmp_path):
    place = tmp_path / "report" / "videos" / "baseline"
    shutil.copytree(data / "outputs", place)
    (tmp_path / "fast.toml").write_text("")
    answer = run_main(script, "--data", data, "--extractors", "grid", "--out", tmp_path / "report",
                      "--recipes", tmp_path / "fast.toml", "--reference", place)
    assert answer.status == 2 and "the reference, is where timed videos go" in answer.err


def test_a_folder_is_judged_by_name_without_skeletons_too(data, tmp_path):
    folders = Folders(data / "outputs", tmp_path / "candidate", {"bob": data / "videos" / "bob.mp4"})
    judge = Judge(similarity.load_extractors(["grid"]))
    ada, bob = judge_folder(judge, folders, lambda text: None)
    assert ada["unchecked"] == list(NEED_SKELETON) and bob["unchecked"] == []
