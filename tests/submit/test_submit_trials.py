"""Trials: a whole submission passes them, and each fault that only a run shows is found by its check."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import infer
from bench.judge import Judge
from bench.similarity import load_extractor
from engines.errors import Exit
from submit.__main__ import run_base, verdict
from submit.archive import MODE, write_archive
from submit.check import ALL, check_archive, exit_status
from submit.checks import FAIL, NOT_EVALUATED, ON_TRUST, PASS, NotEvaluated, Submission, evaluate
from submit.isolation import isolation
from submit.packages import parse_pins
from submit.profile import load_profile
from submit.sandbox import make_environment
from submit.trial import Question, Trial, Verdict
from tests.extractors import write_extractor
from tests.submissions import contents, only_wheels, repacked, write_wheels

ROOT = Path(__file__).resolve().parents[2]
CPU = load_profile("cpu")
ALIKE = Verdict(1.0, [])


@pytest.fixture(scope="module")
def good(packed):
    """The tiny presenter's archive."""
    return packed / "submit.zip"


@pytest.fixture
def data(make_data):
    """Two pairs; what their outputs should be is for the judge to know."""
    folder = make_data({"a": 3, "b": 2})
    (folder / "outputs").mkdir()
    return folder


@pytest.fixture
def trial(good, data):
    """A function that judges an archive by checks: results by id. It runs on the Python of these tests."""
    def run(ids, path=good, limit=3600.0, **question):
        with Submission(path, CPU, limit) as submission:
            defaults = {"judge": lambda folders: ALIKE, "base": lambda *asked: None, "generator": "tiny"}
            asked = Question(data, **{**defaults, **question})
            with Trial(submission, asked, lambda text: None, Path(sys.executable)) as made:
                results = {id: evaluate(ALL[id], made) for id in ids}
            assert not made.work.exists()
            return results
    return run


@pytest.fixture
def spoilt(good, tmp_path):
    """A function that puts code into the archive's infer.py, to run before all else."""
    def spoil(code, **files):
        mark = b'if __name__ == "__main__":\n'
        text = "".join(f"    {line}\n" for line in ("import os, sys, time", *code.splitlines()))
        changed = {"infer.py": lambda content: content.replace(mark, mark + text.encode()), **files}
        return repacked(good, tmp_path / "bad.zip", changed)
    return spoil


def failed(results):
    return {id: result.problems for id, result in results.items() if result.status == FAIL}


def test_a_whole_submission_passes_every_trial_with_the_judge_of_bench(
        trial, data, tiny_file, run_main, tmp_path, monkeypatch):
    where = "--data", data, "--out", data / "outputs", "--generator", f"{tiny_file}:Tiny"
    assert run_main(infer, *where).status == 0
    monkeypatch.setattr("bench.similarity.EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    judge = partial(verdict, Judge([load_extractor("grid")]))
    base, name = partial(run_base, data, "cpu"), f"{tiny_file}:Tiny"
    ids = ["S10", "S11", "S12", "S13", "S14", "S15"]
    results = trial(ids, judge=judge, base=base, generator=name, threshold=60.0)
    assert failed(results) == {} and {each.status for each in results.values()} == {PASS}
    for id, words in (("S10", ("isolated by", "of 2 videos", "nobody has seen")), ("S12", ("nobody",))):
        notes = " ".join(results[id].notes)
        assert all(word in notes for word in words), notes
        assert min(map(float, re.findall(r"similarity ([\d.]+)", notes))) > 0.99
    assert (data / "videos" / "a.mp4").is_file() and os.access(data / "videos", os.W_OK)


def test_a_verdict_of_the_judge_and_a_missing_demo(trial, data):
    reason = "a: similarity (grid) 0.90000, needs >= 0.97"
    assert failed(trial(["S10"], judge=lambda folders: Verdict(0.9, [reason]))) == {"S10": [reason]}
    (data / "outputs").rmdir()
    assert trial(["S10"])["S10"].status == NOT_EVALUATED


def test_a_submission_that_needs_its_own_folder_is_rejected(trial, spoilt):
    found = failed(trial(["S10"], spoilt("open('recipe.toml')")))
    assert "No such file or directory: 'recipe.toml'" in found["S10"][0]


def test_a_submission_that_hangs_is_stopped(trial, spoilt):
    found = failed(trial(["S10"], spoilt("time.sleep(60)"), limit=5.0))
    assert "was stopped after" in found["S10"][0]


def test_other_frames_in_the_second_run_are_noticed(trial, spoilt):
    found = failed(trial(["S11"], spoilt("sys.argv += ['--seed', str(time.time_ns() % 10**6)]")))
    assert found == {"S11": ["a has other frames in the second run", "b has other frames in the second run"]}


@pytest.mark.parametrize(("code", "text"), [
    ("assert all(name.isascii() for name in os.listdir(sys.argv[2] + '/videos'))", "status 1"),
    ("assert os.listdir(sys.argv[2] + '/images'), 'no image'", "without any image infer.py ends with"),
    ("import generators.presenter.generator as g\ncover = g.cover\n"
     "g.cover = lambda x, *size: cover(x, *size) if x.shape[1] % 2 == 0 else 1 / 0", "ZeroDivisionError"),
])
def test_what_only_unseen_data_shows_is_rejected(trial, spoilt, code, text):
    found = failed(trial(["S12"], spoilt(code)))
    assert any(text in problem for problem in found["S12"]), found


def test_folders_among_pictures_and_videos_are_no_fault_of_the_archive(trial, data):
    for folder in ("images/.ipynb_checkpoints", "videos/set"):
        (data / folder).mkdir()
    (data / "videos" / "a.mp4").rename(data / "videos" / "set" / "a.mp4")
    (data / "pairs.csv").write_text("id,video,image\na,set/a.mp4,a.png\nb,b.mp4,b.png\n")
    assert failed(trial(["S12"])) == {}


def test_a_run_above_the_threshold_is_too_slow(trial):
    found = failed(trial(["S13"], threshold=0.001))
    assert "s a video, allowed are 0.001" in found["S13"][0]


def test_what_is_built_at_the_first_run_counts_as_the_environments_time(trial, spoilt):
    code = "built = HERE / 'engines/built/x'\nif not built.exists():\n    built.touch()\n    time.sleep(8)"
    builds = {"submission.json": lambda content: content.replace(b'"build": false', b'"build": true')}
    result = trial(["S13"], spoilt(code, **builds), threshold=4.0)["S13"]
    assert result.status == PASS, result
    assert 6 <= int(re.search(r"the environment took (\d+) s", result.notes[1])[1]) <= 20


def test_all_that_is_left_behind_is_named(trial, spoilt):
    left = {
        "open(os.environ['HOME'] + '/.cache', 'w')": ".cache in HOME",
        "import tempfile; tempfile.mkstemp(prefix='left')": "in TMPDIR",
        "open('debug.txt', 'w')": "debug.txt in the working folder",
        "open(sys.argv[4] + '/a.tmp', 'w')": "a.tmp is left",
        "open(HERE / 'recipe.toml', 'a').write('#')": "recipe.toml in its folder",
        "os.symlink('/etc/passwd', sys.argv[4] + '/a.mp4')": "a.mp4 in the output folder is no plain file",
        "import subprocess; subprocess.Popen(['sleep', '99'])": "the process 'sleep' lived on",
    }
    problems = failed(trial(["S14"], spoilt("\n".join(left))))["S14"]
    assert [text for text in left.values() if not any(text in each for each in problems)] == [], problems


def test_a_program_that_must_be_executable_runs_in_one_unpacking_only(trial, spoilt, tmp_path, monkeypatch):
    code = "import subprocess\nsubprocess.run([HERE / 'tool.sh'], check=True)"
    files = contents(spoilt(code, **{"tool.sh": b"#!/bin/sh\n"}))
    monkeypatch.setattr("submit.archive.MODE", MODE | 0o111)
    write_archive(tmp_path / "tool.zip", files)
    (found,) = failed(trial(["S15"], tmp_path / "tool.zip"))["S15"]
    assert found.startswith("unpacked by zipfile: infer.py ended") and "Permission" in found


# The sandbox


@pytest.fixture
def without_isolation(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "no tools"))
    isolation.cache_clear()
    yield
    isolation.cache_clear()


def test_where_nothing_isolates_nothing_runs_and_on_trust_it_is_no_pass(
        good, data, tmp_path, monkeypatch, without_isolation):
    only_wheels(monkeypatch, good.parent / "index")
    (tmp_path / "canary").touch()
    code = f"import os\nos.remove({str(tmp_path / 'canary')!r})\n".encode()
    bad = repacked(good, tmp_path / "bad.zip", {"infer.py": lambda content: code + content})
    question = Question(data, lambda folders: ALIKE, lambda *asked: None)
    with Submission(bad, CPU) as submission, Trial(submission, question, print, Path(sys.executable)) as made:
        result = evaluate(ALL["S10"], made, on_trust=True)
    assert result.status == NOT_EVALUATED and "--trust" in result.notes[0] and (tmp_path / "canary").is_file()
    question = replace(question, generator="tiny", trust=True)
    with Submission(good, CPU) as whole, Trial(whole, question, print, Path(sys.executable)) as made:
        result = evaluate(ALL["S10"], made, on_trust=True)
    assert result.status == ON_TRUST and exit_status([result]) == Exit.ON_TRUST != Exit.OK, result


def test_nothing_of_an_archive_that_is_refused_is_installed_or_run(good, data, tmp_path, monkeypatch):
    only_wheels(monkeypatch, good.parent / "index")
    lines = b"./evil\n--extra-index-url http://127.0.0.1:9/simple\n"
    bad = repacked(good, tmp_path / "bad.zip", {"requirements.txt": lambda content: content + lines})
    said = []
    question = Question(data, lambda folders: ALIKE, lambda *asked: None)
    results = {each.id: each for each in check_archive(bad, CPU, question, 600.0, said.append)}
    assert [text.partition(" is not")[0] for text in results["S06"].problems] == [
        "'./evil'", "'--extra-index-url http://127.0.0.1:9/simple'"]
    assert {each.status for id, each in results.items() if "S10" <= id <= "S15"} == {NOT_EVALUATED}
    assert said == [] and "see S06" in results["S10"].notes[0]


def test_without_the_base_model_at_hand_a_run_on_unseen_data_is_not_evaluated(trial):
    result = trial(["S10"], generator=None)["S10"]
    assert result.status == NOT_EVALUATED and "--generator" in result.notes[-1]


def test_a_new_environment_has_what_the_wheels_give_and_nothing_else(tmp_path, good, monkeypatch):
    only_wheels(monkeypatch, tmp_path / "nothing")
    write_wheels(tmp_path / "unpacked" / "wheels")
    text = contents(good)["requirements.txt"].decode().replace("openvino-telemetry", "#")
    pins, _ = parse_pins(text)

    def make():
        return make_environment(tmp_path / "venv", sys.executable, tmp_path / "unpacked", pins, lambda: 300.0)
    with pytest.raises(NotEvaluated, match="Hashes are required"):
        make()
    (tmp_path / "unpacked" / "wheels").rename(tmp_path / "index")
    only_wheels(monkeypatch, tmp_path / "index")
    made = make()
    answer = subprocess.run([made.python, "-m", "pip", "list"], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in answer.stdout.splitlines()[2:]} - {"pip", "setuptools"}
    assert names == {"imageio-ffmpeg", "numpy", "openvino", "pillow", "tqdm"} and made.seconds > 0
