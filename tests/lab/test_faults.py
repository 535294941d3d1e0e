"""Mutated files through whole runs and the fuzz, in small; and the inputs that once ended a run."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import Exit
from lab.faults import fuzz as fuzzing
from lab.faults.fuzz import TARGETS, fuzz
from lab.faults.mutations import MUTATIONS, mutated, reworded
from lab.faults.numpy_generator import SCRIPT
from lab.faults.whole_runs import GOOD, make_folder, whole_run

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases" / "media"


@pytest.mark.parametrize("workers", [1, 2])
def test_mutated_files_end_no_run_and_cost_no_other(tmp_path, workers):
    make_folder(tmp_path / "data", 8, 8, 3)
    counts = whole_run(tmp_path / "data", tmp_path / "out", workers)
    assert counts.clean and counts.status == Exit.SOME_FAILED and counts.lost == counts.unexplained == ()
    assert counts.made + counts.refused == 16 and counts.refused > 3
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == GOOD + 16


def test_a_run_that_loses_a_video_is_not_clean(tmp_path):
    make_folder(tmp_path / "data", 0, 0, 3)
    (tmp_path / "data" / "videos" / "good7.flv").write_bytes(b"spoilt")
    counts = whole_run(tmp_path / "data", tmp_path / "out", 1)
    assert not counts.clean and counts.lost == ("good7",)


def test_the_fuzz_finds_no_bug_in_a_few_inputs(tmp_path):
    found = fuzz(list(TARGETS), 4.0, tmp_path, 2, print)
    assert set(found) == set(TARGETS)
    assert all(tally.tried > 0 and not tally.bugs and not tally.hangs for tally in found.values()), found
    assert sum(tally.refused for tally in found.values()) > 0


def test_the_fuzz_keeps_an_input_that_raises_another_error(tmp_path, monkeypatch):
    def read(source, now, spoil):
        (now / "in").write_bytes(content := spoil(source.read_bytes()))
        if content != source.read_bytes():
            raise ZeroDivisionError("a bug")

    monkeypatch.setitem(TARGETS, "recipe", (fuzzing._recipe_seeds, read))
    tally = fuzz(["recipe"], 0.1, tmp_path, 2, lambda text: None)["recipe"]
    kept = Path(tally.bugs[0])
    assert (kept / "in").exists() and "ZeroDivisionError: a bug" in (kept / "why.txt").read_text()


def test_mutations_spoil_bytes_and_words():
    draws, text = random.Random(1), b'{"a": [1, 2], "b": "c"}'
    assert all(mutated(bytes(range(256)), kind, draws) != bytes(range(256)) for kind in MUTATIONS)
    assert len({reworded(text, draws) for _ in range(20)}) > 15


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize("workers", [1, 2])
def test_what_once_ended_a_run_is_its_video_s_line(tmp_path, make_data, workers):
    data = make_data({"good": 3, "folder": 2, "link": 2, "pipe": 2})
    videos, images = data / "videos", data / "images"
    puts = {"folder": os.mkdir, "link": lambda path: path.symlink_to("/nowhere"), "pipe": os.mkfifo}
    for name, put in puts.items():
        (videos / f"{name}.mp4").unlink()
        put(videos / f"{name}.mp4")
    for path in CASES.glob("*.[mp][pn][4g]"):
        good = "good.png" if path.suffix == ".mp4" else "good.mp4"
        own, other = (videos, images) if path.suffix == ".mp4" else (images, videos)
        shutil.copyfile(path, own / path.name)
        shutil.copyfile(other / good, other / f"{path.stem}{good[4:]}")
    command = [sys.executable, "infer.py", "--generator", SCRIPT, "--data", str(data), "--json", "--workers",
               str(workers), "--out", str(tmp_path / "out")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = {line["id"]: line for line in map(json.loads, answer.stdout.splitlines())}
    assert answer.returncode == Exit.SOME_FAILED and "Traceback" not in answer.stderr, answer.stderr
    failed = {name: line["error"] for name, line in lines.items() if line["status"] == "failed"}
    assert set(lines) - set(failed) == {"good", "skeleton_editlist", "trim_editlist"}
    words = {"folder": "is a folder", "link": "is a link to nothing", "pipe": "is no regular file",
             "fps2000": "2000 frames/s", "fps_1_5000": "0.0002 frames/s", "gap10h_zerodiv": "frames/s",
             "avif_damaged": "is damaged", "dds_damaged": "is not a picture", "eps_named": "is not a picture",
             "png_short_idat": "is damaged"}
    assert set(failed) == set(words)
    for name, text in words.items():
        assert re.search(rf"/(videos|images)/{name}\.\w+: .*{text}", failed[name]), failed[name]
