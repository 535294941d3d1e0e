"""Trials: a whole submission passes them, and each fault that only a run shows is found by its check."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.judge import Folders, Judge, judge_folder, reasons, similarity
from bench.similarity import load_extractor
from submit import sandbox
from submit.archive import MODE, write_archive
from submit.check import ALL
from submit.checks import FAIL, NOT_EVALUATED, PASS, NotEvaluated, Submission, evaluate
from submit.profile import load_profile
from submit.sandbox import Environment, Sandbox, make_environment
from submit.trial import Question, Trial, Verdict
from tests.extractors import write_extractor
from tests.submissions import contents, only_wheels, pack_tiny, repacked, write_wheels

ROOT = Path(__file__).resolve().parents[2]
CPU = load_profile("cpu")
ALIKE = Verdict(1.0, [])


@pytest.fixture(scope="module")
def good(tiny_file, tiny_built, tmp_path_factory):
    """The tiny presenter's archive."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVACE_BUILT", str(tiny_built))
        only_wheels(patch, write_wheels(folder / "index"))
        return pack_tiny(tiny_file, folder / "submit.zip").path


@pytest.fixture
def data(make_data):
    """Two pairs; what their outputs should be is for the judge to know."""
    folder = make_data({"a": 3, "b": 2})
    (folder / "outputs").mkdir()
    return folder


@pytest.fixture
def trial(good, data):
    """A function that judges an archive by checks: results by id. It runs on the Python of these tests."""
    def run(ids, path=good, **question):
        with Submission(path, CPU) as submission:
            asked = Question(data, question.pop("judge", lambda folder: ALIKE), **question)
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
        trial, data, tiny_file, tmp_path, monkeypatch):
    command = [sys.executable, "infer.py", "--data", str(data), "--out", str(data / "outputs")]
    subprocess.run([*command, "--generator", f"{tiny_file}:Tiny"], cwd=ROOT, check=True, capture_output=True)
    monkeypatch.setattr("bench.similarity.EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    judge = Judge([load_extractor("grid")])

    def against(folder):
        found = judge_folder(judge, Folders(data / "outputs", folder, {}), lambda text: None)
        return Verdict(similarity(found), reasons(found))

    results = trial(["S10", "S11", "S12", "S13", "S14", "S15"], judge=against, threshold=60.0)
    assert failed(results) == {} and {each.status for each in results.values()} == {PASS}
    notes = " ".join(results["S10"].notes)
    assert "similarity 0.99" in notes or "similarity 1.0" in notes
    assert "no network by" in notes and "提交 检查" in notes and "of 2 videos" in notes
    assert (data / "videos" / "a.mp4").is_file() and os.access(data / "videos", os.W_OK)


def test_a_verdict_of_the_judge_and_a_missing_demo(trial, data):
    reason = "a: similarity (grid) 0.90000, needs >= 0.97"
    assert failed(trial(["S10"], judge=lambda folder: Verdict(0.9, [reason]))) == {"S10": [reason]}
    (data / "outputs").rmdir()
    assert trial(["S10"])["S10"].status == NOT_EVALUATED


def test_a_submission_that_needs_the_network_or_its_own_folder_is_rejected(trial, spoilt):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}))"
        assert "ended with status 1" in failed(trial(["S10"], spoilt(code)))["S10"][0]
    found = failed(trial(["S10"], spoilt("open('recipe.toml')")))
    assert "No such file or directory: 'recipe.toml'" in found["S10"][0]


def test_a_submission_that_hangs_is_stopped(trial, spoilt):
    found = failed(trial(["S10"], spoilt("time.sleep(60)"), limit=1.0))
    assert "took longer than 1 s and was stopped" in found["S10"][0]


def test_other_frames_in_the_second_run_are_noticed(trial, spoilt):
    found = failed(trial(["S11"], spoilt("sys.argv += ['--seed', str(os.getpid())]")))
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


def test_a_run_above_the_threshold_is_too_slow(trial):
    found = failed(trial(["S13"], threshold=0.001))
    assert "s a video, allowed are 0.001" in found["S13"][0]


def test_what_is_built_at_the_first_run_counts_as_the_environments_time(trial, spoilt):
    code = "built = HERE / 'engines/built/x'\nif not built.exists():\n    built.touch()\n    time.sleep(8)"
    builds = {"submission.json": lambda content: content.replace(b'"build": false', b'"build": true')}
    result = trial(["S13"], spoilt(code, **builds), threshold=4.0)["S13"]
    assert result.status == PASS, result
    assert 6 <= int(re.search(r"the environment took (\d+) s", result.notes[1])[1]) <= 10


@pytest.mark.parametrize(("code", "text"), [
    ("open(os.environ['HOME'] + '/.cache', 'w')", ".cache in HOME"),
    ("import tempfile; tempfile.mkstemp(prefix='left')", "in TMPDIR"),
    ("open('debug.txt', 'w')", "debug.txt in the working folder"),
    ("os.makedirs(sys.argv[4])\nopen(sys.argv[4] + '/a.tmp', 'w')", "a.tmp is left"),
    ("open(HERE / 'recipe.toml', 'a').write('#')", "recipe.toml in its folder"),
    ("path = sys.argv[2] + '/videos/new.txt'\nos.chmod(os.path.dirname(path), 0o777); open(path, 'w')",
     "new.txt in the data"),
])
def test_what_is_left_behind_is_named(trial, spoilt, code, text):
    found = failed(trial(["S14"], spoilt(code)))
    assert any(text in problem for problem in found["S14"]), found


def test_a_program_that_must_be_executable_runs_in_one_unpacking_only(trial, spoilt, tmp_path, monkeypatch):
    code = "import subprocess\nsubprocess.run([HERE / 'tool.sh'], check=True)"
    files = contents(spoilt(code, **{"tool.sh": b"#!/bin/sh\n"}))
    monkeypatch.setattr("submit.archive.MODE", MODE | 0o111)
    write_archive(tmp_path / "tool.zip", files)
    (found,) = failed(trial(["S15"], tmp_path / "tool.zip"))["S15"]
    assert found.startswith("unpacked by zipfile: infer.py ended") and "Permission" in found


# The sandbox


def sandboxed(tmp_path, program):
    log = tmp_path / "log"
    box = Sandbox(Environment(Path(sys.executable), 0.0), tmp_path / "提交 1", 20.0)
    ended = box.run(["-c", program], tmp_path / "cwd", log)
    return ended.status, ended.stdout.strip() + log.read_text()


@pytest.mark.parametrize("namespaces", [True, False])
def test_there_is_no_network_whatever_blocks_it(tmp_path, monkeypatch, namespaces):
    if namespaces and not sandbox.network_namespace():
        pytest.skip("this system permits no network namespaces")
    if not namespaces:
        monkeypatch.setattr(sandbox, "network_namespace", lambda: [])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        status, said = sandboxed(tmp_path, program)
    assert status == 1 and ("no network" in said) == (not namespaces), said


def test_the_child_has_a_home_of_nobodys_and_none_of_our_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("VIVACE_BUILT", "/nowhere")
    program = "from os import *; print(environ['HOME'], listdir(environ['HOME']), 'VIVACE_BUILT' in environ)"
    status, said = sandboxed(tmp_path, program)
    assert (status, said) == (0, f"{tmp_path}/提交 1/home [] False")


def test_a_new_environment_has_what_the_wheels_give_and_nothing_else(tmp_path, good, monkeypatch):
    only_wheels(monkeypatch, tmp_path / "nothing")
    write_wheels(tmp_path / "unpacked" / "wheels")
    pins = contents(good)["requirements.txt"].decode().replace("openvino-telemetry", "#")
    (tmp_path / "unpacked" / "requirements.txt").write_text("--no-index\n--find-links wheels\n" + pins)
    with pytest.raises(NotEvaluated, match="Hashes are required"):
        make_environment(tmp_path / "venv", sys.executable, tmp_path / "unpacked")
    (tmp_path / "unpacked" / "wheels").rename(tmp_path / "index")
    (tmp_path / "unpacked" / "requirements.txt").write_text(pins)
    only_wheels(monkeypatch, tmp_path / "index")
    made = make_environment(tmp_path / "venv", sys.executable, tmp_path / "unpacked")
    answer = subprocess.run([made.python, "-m", "pip", "list"], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in answer.stdout.splitlines()[2:]} - {"pip", "setuptools"}
    assert names == {"imageio-ffmpeg", "numpy", "openvino", "pillow", "tqdm"} and made.seconds > 0
