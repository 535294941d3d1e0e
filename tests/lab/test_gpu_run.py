"""A run on a GPU machine keeps what it learnt, whatever ends it, and goes on behind that."""

import faulthandler
import json
import math
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from engines.attention import open_attention
from engines.errors import EngineError
from lab.gpu import __main__ as command
from lab.gpu import run
from lab.gpu.ceilings import stop_if_broken
from lab.gpu.expected import PREDICTED
from lab.gpu.run import COMMANDS, ENTRIES, IMPORT_SECONDS, IMPORTS, Entry, Place, Record, measure_entries
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
    list(measure_entries(entries, Place("cpu", tiny, folder), record, until, said.append))
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
    program = ("from pathlib import Path; from tests.lab.test_gpu_run import entry, measured, run\n"
               "run.LEAST, listed = 1, (entry('a', 'hang'), entry('b', 'work'))\n"
               f"measured(Path({str(tmp_path)!r}), *listed, tiny=False)")
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


def test_what_nearly_fits_is_begun_and_no_limit_is_behind_the_commands_end(tmp_path, monkeypatch):
    alarms = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda after, exit: alarms.append(round(after)))
    listed = entry("long", "work", 150), entry("middle", "work", 50), entry("short", "work", 5)
    found, _ = measured(tmp_path, *listed, until=time.monotonic() + 100.4, tiny=False)
    assert [found[each.name]["status"] for each in listed] == ["done"] * 3
    assert alarms == [90, 100, 75, 30]  # imports, what is left, half as much again, the least of all


def test_imports_are_timed_before_the_first_limit_begins_and_are_no_part_of_it(tmp_path, monkeypatch):
    (tmp_path / "slow_import.py").write_text(
        "import time; time.sleep(2)\ndef fake(place, emit, what): emit('figure', 1.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(run, "LEAST", 1)  # a limit that counted the import would end this process
    found, _ = measured(tmp_path, Entry("a", 1, "slow_import:fake", ("",)), tiny=False)
    assert found["a"]["status"] == "done" and found["a"]["seconds"] < 1
    assert found[IMPORTS]["modules"] == {"slow_import": pytest.approx(2, abs=0.9)}


def test_what_cannot_be_imported_leaves_out_its_own_entries_and_is_tried_again_by_a_later_call(tmp_path):
    missing = Entry("a", 1, "tests.lab.no_such_module:fake", ("",))
    found, said = measured(tmp_path, missing, entry("b", "work"))
    assert "No module named 'tests.lab.no_such_module'" in found["a"]["left_out"] and len(said) == 2
    assert "status" not in found["a"] and found["b"]["status"] == "done"


def test_an_import_that_ends_the_process_is_tried_twice_then_the_others_are_measured(tmp_path, monkeypatch):
    (tmp_path / "ending_import.py").write_text("raise AttributeError('numpy has no bool8')")
    monkeypatch.syspath_prepend(tmp_path)
    listed = Entry("a", 1, "ending_import:fake"), entry("b", "work")
    for _ in range(2):
        with pytest.raises(AttributeError):
            measured(tmp_path, *listed)
    found, _ = measured(tmp_path, *listed)
    assert found["a"]["left_out"] == "the import of ending_import ended 2 processes"
    assert found["b"]["status"] == found[IMPORTS]["status"] == "done"


def test_tables_are_written_behind_each_entry(tmp_path):
    record, place = Record(tmp_path / "fake.json"), Place("cpu", True, tmp_path)
    for name in measure_entries([entry("a", "work"), entry("b", "work")], place, record, math.inf, print):
        assert f"## {name}\n\ndone" in (tmp_path / "fake.md").read_text()


def test_an_entry_that_is_named_is_measured_again_and_what_it_had_is_kept(run_main, monkeypatch, tmp_path):
    measured(tmp_path, entry("wan-81", "work"))
    (tmp_path / "fake.json").rename(tmp_path / "rehearsal.json")
    monkeypatch.setattr(command, "_measured", lambda *given: 0)
    assert run_main(command, "wan-81", "--dry-run", "--out", tmp_path).status == 0
    found = json.loads((tmp_path / "rehearsal.json").read_text())["entries"]["wan-81"]
    assert found["earlier"]["figure"] == 1.5 and "status" not in found
    (tmp_path / "rehearsal.json").rename(tmp_path / "fake.json")
    again = measured(tmp_path, entry("wan-81", "work"))[0]["wan-81"]
    assert again["earlier"]["figure"] == again["figure"] == 1.5 and again["status"] == "done"


def test_results_go_where_out_in_the_environment_says_and_are_printed(run_main, monkeypatch, tmp_path):
    record = Record(tmp_path / "back" / "rehearsal.json")
    monkeypatch.setenv("OUT", str(record.path.parent))
    monkeypatch.setattr(command, "_measured", lambda *given: 0)
    answer = run_main(command, "wan-81", "--dry-run")
    assert answer.status == 0 and record.path.with_suffix(".md").is_file()
    assert answer.out.endswith(f"|wan-81: engine:bf16|720|not run yet||\n{record.path}\n")
    run_main(command, "wan-81", "--dry-run", "--out", tmp_path)
    assert (tmp_path / "rehearsal.md").is_file()


def test_each_command_fits_into_its_time():
    for name, (entries, seconds) in COMMANDS.items():
        new = [each.seconds for each in entries if name == "first" or each.name != "machine"]
        assert IMPORT_SECONDS + sum(new) <= seconds


def test_correctness_comes_first_and_what_is_to_gain_most_before_the_rest():
    order = [each.name for each in COMMANDS["first"][0]]
    assert order[:4] == ["machine", "tests", "presenter", "presenter end to end"]
    gains = [min(PREDICTED[each.given[0]].values()) / min(PREDICTED[each.name].values())
             for each in COMMANDS["second"][0] if "compiled" in each.name]
    assert len(gains) == 3 and gains == sorted(gains, reverse=True)


def test_torch_takes_one_networks_code_for_its_like_so_an_entry_has_one_compiled_way():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    networks = [torch.compile(torch.nn.Linear(4, 4), backend=backend) for _ in range(2)]
    with torch.inference_mode():
        for network, attention in zip(networks, (nullcontext, open_attention("cudnn")), strict=True):
            with attention():
                network(torch.ones(1, 4))
    torch.compiler.reset()
    assert len(compiled) == 1, "then the entries for wan-81 can be one"
    for each in ENTRIES.values():
        assert sum("compile" in variant for variant in (each.given or (None, ()))[1]) <= 1


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
def test_both_commands_are_rehearsed_on_a_processor(run_main, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tiny networks gain nothing by two, and waiting threads spin
    answer = run_main(command, "--dry-run", "--out", tmp_path)
    assert answer.status == 0, answer.err
    found = json.loads((tmp_path / "rehearsal.json").read_text())["entries"]
    for each in ENTRIES.values():
        assert found[each.name]["status"] == "done", (each.name, found[each.name])
        for variant in each.given[1] if each.given else ():
            row, needs_gpu = found[each.name]["ways"][variant], "graph" in variant
            right = "refused" in row if needs_gpu else row["rounds"] == 1 and row["apart"] < 0.05
            assert right, (variant, row)
            assert needs_gpu or "compile" in variant or row["error"] < 0.05, (variant, row)
    assert found["tests"]["counts"] == {"skipped": found["tests"]["counts"]["skipped"]}
    assert list(found["tests"]["reasons"])[-1].startswith("test_infer_ends"), "the slowest is not the last"
    assert found[IMPORTS]["status"] == "done" and found[IMPORTS]["modules"]["lab.gpu.frames"] >= 0
    frames = found["presenter end to end"]
    assert frames["ways"]["torch:fp32 baseline"]["similarity"] == pytest.approx(1, abs=1e-4)
    assert frames["ways"]["torch:fp16 fast"]["speed"] > 0
    assert 40 < frames["noise_floor"]["one bf16 ulp beside"]["psnr"] < 90
    assert found["mimicmotion-72"]["profile"]["kernels"]
    assert "## Predictions" in (tmp_path / "rehearsal.md").read_text()
    assert all(f"\n## {name}\n" in answer.out for name in ENTRIES) and len(answer.out) < 12000
