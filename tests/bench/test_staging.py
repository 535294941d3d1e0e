"""The hidden folder of a timing is gone afterwards, or at the next start; what is kept names its place."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import timed_run as module
from bench.timed_run import keep, staging

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from bench.timed_run import staging

with staging(Path(sys.argv[1])) as folder:
    (folder / "runs").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_timing_left_goes_at_the_next_start(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    with staging(tmp_path) as folder:
        assert names(tmp_path) == [folder.name] != [left]
    assert names(tmp_path) == []


def test_a_folder_of_a_number_that_is_ours_now_was_another_process(tmp_path):
    (tmp_path / f".timing-{os.getpid()}-left").mkdir()
    with staging(tmp_path) as folder:
        assert names(tmp_path) == [folder.name]


@pytest.mark.parametrize("error", [None, PermissionError], ids=["ours", "another user's"])
def test_the_folder_of_a_living_process_stays(tmp_path, monkeypatch, error):
    asked = []

    def kill(process, number):
        asked.append((process, number))
        if error:
            raise error

    monkeypatch.setattr(module.os, "kill", kill)
    (tmp_path / ".timing-12345-x").mkdir()
    with staging(tmp_path):
        pass
    assert names(tmp_path) == [".timing-12345-x"] and asked == [(12345, 0)]


@pytest.mark.parametrize(
    "name", [".timing-x", ".timing-0-x", ".timing-99999999999999-x", ".timing-1", "timing-9-x"])
def test_what_names_no_process_stays(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module.os, "kill", lambda *_: pytest.fail("a process was looked for"))
    (tmp_path / name).mkdir()
    with staging(tmp_path):
        pass
    assert names(tmp_path) == [name]


def test_what_is_kept_names_its_place_in_manifest_and_log(tmp_path):
    made, place = tmp_path / ".timing-1-x" / "runs" / "fast", tmp_path / "fast"
    made.mkdir(parents=True)
    (made / "infer.log").write_text(f"[1/2] a: {made}/a.mp4 (3 frames)\n1 of 2 videos are in {made}\n")
    lines = [{"id": "a", "output": f"{made}/a.mp4", "frames": 3, "seconds": {"read": 1.0}},
             {"id": "b", "error": f"{made}/b.mp4 cannot be written"}]
    keep(made, lines, place)
    said = (place / "infer.log").read_text()
    assert said == f"[1/2] a: {place}/a.mp4 (3 frames)\n1 of 2 videos are in {place}\n"
    kept = [json.loads(line) for line in (place / "manifest.jsonl").read_text().splitlines()]
    assert kept == [{**lines[0], "output": f"{place}/a.mp4", "recipe": "fast"},
                    {"id": "b", "error": f"{place}/b.mp4 cannot be written", "recipe": "fast"}]


def test_a_path_that_is_no_text_is_replaced_as_infer_py_has_written_it(tmp_path):
    made, place = tmp_path / "\udcff" / "fast", tmp_path / "fast"
    made.mkdir(parents=True)
    (made / "infer.log").write_text(f"videos are in {made}\n", errors="backslashreplace")
    keep(made, [], place)
    assert (place / "infer.log").read_text() == f"videos are in {place}\n"
