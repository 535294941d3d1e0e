"""A run on a GPU machine keeps what it learnt, whatever ends it, and goes on from there."""

import json
import time
from pathlib import Path

import pytest

from bench import __main__ as script
from bench.gpu import measuring, run
from bench.gpu.measuring import Workplace, measure_entries
from bench.gpu.plan import ENTRIES, Entry, planned
from bench.gpu.record import Record
from bench.gpu.run import slowest
from bench.gpu.tests_there import outcomes
from bench.gpu.ways import Way
from engines.spec import EngineError

# In place of the process that measures: ways say what it does.
WORKER = '''
import json, os, signal, sys, time
task = json.loads(open(sys.argv[1]).read())
with open(task["lines"], "a") as lines:
    def emit(entry, **line):
        lines.write(json.dumps({"entry": entry, **line}) + "\\n")
        lines.flush()
    for entry in task["entries"]:
        if entry["kind"] == "nothing":
            sys.exit("ImportError: no torch")
        emit(entry["name"], status="begun", kind="network")
        for way in entry["ways"]:
            emit(entry["name"], begun=way)
            if way == "crash":
                print("illegal memory access", flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            if way == "hang":
                time.sleep(1000)
            emit(entry["name"], way=way, seconds=0.5, start_seconds=1.0, pid=os.getpid(), bad=float("nan"))
        emit(entry["name"], status="done")
'''


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """measure_entries with the worker above: entries by name, their ways; seconds that it may take."""
    package = tmp_path / "root" / "bench" / "gpu"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(WORKER)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    monkeypatch.setattr(measuring, "ROOT", tmp_path / "root")
    monkeypatch.setattr(measuring, "START", 0)
    record, said = Record("fake", [tmp_path / "work", tmp_path / "results"]), []

    def measure(entries, limit=60.0, kind="network"):
        listed = [Entry(name, kind, tuple(ways), 1, "") for name, ways in entries.items()]
        place = Workplace(tmp_path / "work", "cpu", False, time.monotonic() + limit)
        return measure_entries(listed, place, record, said.append)

    measure.record, measure.said = record, said
    return measure


def test_a_way_that_ends_the_process_is_noted_and_all_others_are_measured(fake):
    assert fake({"a": ["good", "crash", "fine"], "b": ["good"]}) == []
    entries = fake.record.data["entries"]
    assert entries["a"]["status"] == entries["b"]["status"] == "done"
    assert list(entries["a"]["ways"]) == ["good", "fine"]
    why = "the process ended with status -11: illegal memory access"
    assert entries["a"]["ended"] == {"crash": why} and fake.said == [f"a: crash: {why}"]


def test_what_is_done_is_not_measured_again(fake):
    fake({"a": ["good"]})
    first = fake.record.data["entries"]["a"]["ways"]["good"]["pid"]
    fake({"a": ["good"], "b": ["good"]})
    entries = fake.record.data["entries"]
    assert entries["a"]["ways"]["good"]["pid"] == first != entries["b"]["ways"]["good"]["pid"]


def test_at_the_limit_what_was_told_is_kept_and_the_entry_is_left_for_the_next_call(fake, monkeypatch):
    monkeypatch.setattr(measuring, "GRACE", 0)
    assert fake({"a": ["good", "hang"]}, limit=5.0) == ["a"]
    entry = fake.record.data["entries"]["a"]
    assert entry["status"] == "stopped" and entry["why"] == "cut off: no time was left"
    assert list(entry["ways"]) == ["good"] and not entry["ended"]


def test_what_hangs_is_ended_long_before_the_limit(fake, monkeypatch):
    monkeypatch.setattr(measuring, "EXTRA", 0)
    monkeypatch.setattr(measuring, "START", 10)
    assert fake({"a": ["hang", "good"]}) == []
    entry = fake.record.data["entries"]["a"]
    assert entry["ended"] == {"hang": "ended after 4 s"} and list(entry["ways"]) == ["good"]


def test_entries_that_do_not_fit_into_the_time_are_left(fake):
    assert fake({"a": ["good"]}, limit=0.5) == ["a"] and not fake.record.data["entries"]


def test_a_process_that_tells_nothing_is_an_error_with_its_last_words(fake, tmp_path):
    with pytest.raises(EngineError, match="status 1: ImportError: no torch; all it said is in .*worker.log"):
        fake({"a": ["good"]}, kind="nothing")


def test_results_lie_in_all_folders_as_json_and_as_tables_and_a_new_record_goes_on_from_them(fake, tmp_path):
    fake({"a": ["good"]})
    one, two = ((tmp_path / folder / "fake.json").read_text() for folder in ("work", "results"))
    assert one == two and json.loads(one)["entries"]["a"]["ways"]["good"]["bad"] is None
    assert "good|500|" in (tmp_path / "results" / "fake.md").read_text()
    for path in (tmp_path / "work").glob("fake.*"):
        path.unlink()
    again = Record("fake", [tmp_path / "work", tmp_path / "elsewhere"], tmp_path / "results" / "fake.json")
    assert again.done("a") and not again.done("b")


def test_the_furthest_from_their_floors_are_profiled_in_their_fastest_way():
    def entry(**ways):
        return {"ways": {f"{way}:fp16": {"to_floor": ratio} for way, ratio in ways.items()}}

    found = slowest({
        "wan-17": entry(eager=4.0, plain=1.0, engine=1.5), "wan-17 compiled": entry(compile=2.0),
        "mimicmotion-16": entry(eager=3.0), "wan-decode": entry(eager=9.0, channels_last=8.0),
        "presenter": entry(eager=50.0, graph=None), "presenter end to end": entry(eager=99.0),
    })  # fmt: skip
    assert [(each.subject, each.ways) for each in found] == [
        ("presenter", ("eager:fp16",)), ("wan-decode", ("channels_last:fp16",)),
        ("mimicmotion-16", ("eager:fp16",))]


def test_every_way_of_the_plan_is_one_and_names_are_told_apart():
    for entry in ENTRIES:
        for way in entry.ways if entry.kind == "network" else ():
            assert Way.parse(way)
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert {entry.subject for entry in ENTRIES} == {entry.subject for entry in planned(True)} | {
        "wan-81", "mimicmotion-72"}


def test_outcomes_of_tests_are_read_with_their_reasons(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase name="a"/>'
        '<testcase name="b"><failure message="assert 1&#10; == 2"/></testcase>'
        '<testcase name="c"><skipped message="no GPU"/></testcase></testsuite></testsuites>')
    assert outcomes(tmp_path / "tests.xml") == {
        "passed": 1, "failed": 1, "skipped": 1, "reasons": {"b": "assert 1 == 2", "c": "no GPU"}}


def test_without_a_gpu_it_is_status_4_and_a_wrong_stage_is_status_2(run_main, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "gpu_state", lambda: None)
    answer = run_main(script, "gpu", "--work", tmp_path)
    assert answer.status == 4 and "--dry-run rehearses on the processor" in answer.err
    answer = run_main(script, "gpu", "--stages", "mesure", "--work", tmp_path)
    assert answer.status == 2 and "did you mean 'measure'" in answer.err


@pytest.mark.slow
def test_the_whole_sequence_runs_on_a_processor_and_is_not_repeated(run_main, tmp_path):
    pytest.importorskip("generators.mimicmotion")
    answer = run_main(script, "gpu", "--dry-run", "--work", tmp_path)
    assert answer.status == 0, answer.err
    found = json.loads(Path(answer.out.strip()).read_text())
    entries = found["entries"]
    for entry in planned(rehearsal=True):
        assert entries[entry.name]["status"] == "done" and not entries[entry.name]["ended"], entry.name
        for way in entry.ways if entry.kind == "network" else ():
            row = entries[entry.name]["ways"][way]
            wants_gpu = {"cudnn", "efficient", "graph"} & Way.parse(way).features
            assert ("refused" in row) if wants_gpu else row["rounds"] == 2 and row["finite"], (way, row)
            assert row.get("error", 0) < 0.15, (way, row)
    assert [name for name in entries if name.startswith("profile of")]
    assert found["tests"]["status"] == 0 and "failed" not in found["tests"] and found["tests"]["skipped"] > 40
    began = {name: entry["at"] for name, entry in entries.items()}
    answer = run_main(script, "gpu", "--dry-run", "--work", tmp_path)
    again = json.loads(Path(answer.out.strip()).read_text())["entries"]
    assert {name: entry["at"] for name, entry in again.items()} == began
