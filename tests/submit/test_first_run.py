"""A submission's first run: its default options, and the engines that it builds once for the GPU there."""

import threading

import pytest

from engines.errors import EngineError
from engines.load import Choice
from pipeline.submission import LOCK, build_engines_once, entry_defaults

BUILD = """
import sys, time
from pathlib import Path
log = Path(__file__).with_name("log")
with log.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
time.sleep(0.3)
(Path(__file__).parent / "built").touch()
sys.exit({status})
"""


@pytest.fixture
def first_run(tmp_path, monkeypatch):
    """A function that runs the first build with a stand-in for build_trt.py; lines of what it was asked."""
    lacking = "engines.backends.tensorrt_backend.lacking"
    monkeypatch.setattr(lacking, lambda model, precisions, device, folder: (
        [] if (tmp_path / "built").exists() else ["encode", "decode"]))

    def run(status=0, backend="tensorrt", device="cuda"):
        draft = tmp_path / f"{threading.get_ident()}.py"  # a script cut short would be run as it is
        draft.write_text(BUILD.format(status=status))
        draft.replace(tmp_path / "build_trt.py")
        choice = Choice(backend, {"encode": "fp16", "decode": "fp32"}, device, tmp_path / "engines")
        build_engines_once("tiny.py:Tiny", None, choice, tmp_path, lambda text: None)
        return (tmp_path / "log").read_text().splitlines()
    return run


ASKED = ("--generator tiny.py:Tiny --component encode,decode --precision fp16,encode=fp16,decode=fp32 "
         "--target gpu")


def test_engines_are_built_for_the_gpu_that_they_run_on(first_run):
    assert first_run(device="cuda:1") == [f"{ASKED}:1"]


def test_of_several_processes_one_builds_and_the_others_wait(first_run, tmp_path):
    threads = [threading.Thread(target=first_run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "log").read_text().splitlines() == [ASKED]
    assert first_run() == [ASKED] and (tmp_path / "engines" / LOCK).is_file()


def test_a_build_that_fails_is_an_error_of_the_environment(first_run):
    with pytest.raises(EngineError, match="build_trt.py ended with status 4"):
        first_run(status=4)


def test_other_backends_build_nothing(first_run, tmp_path):
    with pytest.raises(FileNotFoundError):
        first_run(backend="openvino")
    assert not (tmp_path / "engines").exists()


def test_where_no_engine_is_missing_nothing_is_written_and_a_read_only_folder_will_do(first_run, tmp_path):
    (tmp_path / "log").touch()
    (tmp_path / "engines").touch()  # no folder, so that not even root can put a lock in it
    with pytest.raises(EngineError, match="cannot build engines in .*/engines: .*; set VIVACE_BUILT"):
        first_run()
    (tmp_path / "built").touch()
    assert first_run() == []
    (tmp_path / "engines").unlink()
    assert first_run() == [] and not (tmp_path / "engines").exists()


def test_a_checkout_has_no_defaults_of_a_submission(tmp_path):
    assert entry_defaults(tmp_path) == {}
    (tmp_path / "submission.json").write_text(
        '{"entry": {"generator": "g/x.py:X", "recipe": "r.toml", "data": "d", "out": "o", "build": true}}')
    assert entry_defaults(tmp_path) == {
        "generator": f"{tmp_path}/g/x.py:X", "recipe": tmp_path / "r.toml", "data": tmp_path / "d",
        "out": tmp_path / "o", "build": True}
