"""A run on a GPU machine keeps what it learnt, whatever ends it, and goes on behind that."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engines.errors import EngineError
from lab.gpu import __main__ as command
from lab.gpu import run
from lab.gpu.ceilings import stop_if_broken
from lab.gpu.run import COMMANDS, ENTRIES, Entry, Place, Record, measure_entries
from pipeline.batch.dataset import first_requests

ROOT = Path(__file__).parents[2]


def fake(place, emit, what):
    """What an entry measures here: a figure, then whatever is asked for."""
    emit("at", "its second figure")
    emit("figure", 1.5)
    if what == "hang":
        time.sleep(60)
    elif what == "end":
        sys.exit("illegal memory access")


def entry(name, what, seconds=1):
    return Entry(name, seconds, "tests.lab.test_gpu_run:fake", (what,))


def measured(folder, *entries, until=1e12, tiny=True):
    """The process that measures: its entries by name, and what it said."""
    said, record = [], Record(folder / "fake.json")
    measure_entries(entries, Place("cpu", tiny, folder), record, until, said.append)
    return json.loads((folder / "fake.json").read_text())["entries"], said


def test_what_ends_the_process_is_named_and_the_next_one_goes_on_behind_it(tmp_path):
    listed = entry("a", "work"), entry("b", "end"), entry("c", "work")
    with pytest.raises(SystemExit):
        measured(tmp_path, *listed)
    before = Record(tmp_path / "fake.json").entries
    assert before["a"]["status"] == "done" and before["b"] == {
        "status": "begun", "at": "its second figure", "figure": 1.5}
    found, _ = measured(tmp_path, *listed)
    assert found["b"]["status"] == "ended the process, or hung, at its second figure"
    assert found["b"]["figure"] == found["c"]["figure"] == 1.5 and found["c"]["status"] == "done"
    assert found["a"] == before["a"]


def test_what_hangs_is_ended_at_one_and_a_half_times_its_estimate_with_what_it_told(tmp_path):
    program = ("import sys; from pathlib import Path; from tests.lab.test_gpu_run import entry, measured\n"
               f"measured(Path({str(tmp_path)!r}), entry('a', 'hang'), entry('b', 'work'), tiny=False)")
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and "in fake" in ended.stderr and time.monotonic() - begun < 50
    found, _ = measured(tmp_path, entry("a", "hang"), entry("b", "work"))
    assert found["a"]["figure"] == 1.5 and "hung, at its second" in found["a"]["status"]
    assert found["b"]["status"] == "done"


def test_an_entry_that_does_not_fit_into_the_time_is_left_out_by_name_and_a_shorter_one_is_not(tmp_path):
    listed = entry("long", "work", 1000), entry("short", "work", 1)
    found, said = measured(tmp_path, *listed, until=time.monotonic() + 100)
    assert "its 1000 s did not fit into" in found["long"]["left_out"] and "status" not in found["long"]
    assert found["short"]["status"] == "done" and said[0].startswith("long: left out")
    found, _ = measured(tmp_path, *listed)
    assert found["long"]["status"] == "done" and "left_out" not in found["long"]


def test_an_entry_that_is_named_is_measured_again_and_what_it_had_is_kept(run_main, monkeypatch, tmp_path):
    measured(tmp_path, entry("wan-81", "work"))
    (tmp_path / "fake.json").rename(tmp_path / "rehearsal.json")
    monkeypatch.setattr(command, "_measured", lambda *given: 0)
    assert run_main(command, "wan-81", "--dry-run", "--out", tmp_path).status == 0
    found = json.loads((tmp_path / "rehearsal.json").read_text())["entries"]["wan-81"]
    assert found["earlier"]["figure"] == 1.5 and "status" not in found


def test_each_command_fits_into_its_time():
    for entries, seconds in COMMANDS.values():
        assert sum(each.seconds for each in entries) <= seconds


def test_a_refusal_that_breaks_the_gpu_ends_the_process_and_another_does_not(monkeypatch):
    refusal = RuntimeError("not while a stream is captured")
    stop_if_broken(refusal)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *given, **named: torch.ones(1))
    stop_if_broken(refusal)
    monkeypatch.setattr(torch, "zeros", lambda *given, **named: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="captured"):
        stop_if_broken(refusal)


def test_without_a_gpu_it_is_status_4_and_a_wrong_entry_is_status_2(run_main, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "gpu_state", lambda: None)
    answer = run_main(command, "--out", tmp_path)
    assert answer.status == 4 and "--dry-run rehearses on the processor" in answer.err
    answer = run_main(command, "wan-18", "--out", tmp_path)
    assert answer.status == 2 and "did you mean 'wan-81'" in answer.err


def test_a_process_that_ends_before_its_first_entry_is_an_error_and_not_started_again(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "_measured", lambda *given: 1)
    args = type("", (), dict(what=["first"], out=tmp_path, seconds=None, dry_run=True, here_until=None))
    with pytest.raises(EngineError, match="ended before it was at an entry"):
        command.run_gpu(args, print)


def test_the_clips_of_gpu_tests_are_read_without_ffmpeg(monkeypatch):
    from pipeline.video import ffmpeg
    from tests.gpu.conftest import Stage

    monkeypatch.setattr(ffmpeg, "ffmpeg_exe", lambda: pytest.fail("asks for ffmpeg"))
    stage = Stage()
    assert [clip.skeletons.shape for clip in stage.clips] == [(16, 192, 128, 3)] * 2
    assert stage.clips[0].skeletons.max() > 100
    requests = first_requests(run.ROOT / "data" / "sample", 2)
    assert [clip.seed for clip in stage.clips] == [each.seed for each in requests]


@pytest.mark.slow
def test_both_commands_are_rehearsed_on_a_processor(run_main, tmp_path):
    answer = run_main(command, "--dry-run", "--out", tmp_path)
    assert answer.status == 0, answer.err
    found = json.loads((tmp_path / "rehearsal.json").read_text())["entries"]
    for each in ENTRIES.values():
        assert found[each.name]["status"] == "done", (each.name, found[each.name])
        for variant in each.given[1] if each.given else ():
            row, needs_gpu = found[each.name]["ways"][variant], "cudnn" in variant or "graph" in variant
            right = "refused" in row if needs_gpu else row["rounds"] == 1 and row["apart"] < 0.05
            assert right, (variant, row)
            assert needs_gpu or "compile" in variant or row["error"] < 0.05, (variant, row)
    assert found["tests"]["counts"] == {"skipped": found["tests"]["counts"]["skipped"]}
    frames = found["presenter end to end"]
    assert frames["ways"]["torch:fp32 baseline"]["similarity"] == pytest.approx(1, abs=1e-4)
    assert frames["ways"]["torch:fp16 fast"]["speed"] > 0
    assert 40 < frames["noise_floor"]["one bf16 ulp beside"]["psnr"] < 90
    assert found["mimicmotion-72"]["profile"]["kernels"]
    assert "## Predictions" in (tmp_path / "rehearsal.md").read_text()
