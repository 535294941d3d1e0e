"""infer.py as people run it: what it prints where, its exit status, and what a signal leaves behind."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import infer as script
from tests.processes import heed_interrupts, processes_about, wait_for

ROOT = Path(__file__).resolve().parent.parent

# After its first chunk a clip of more than one frame stops where ffmpeg is running and has frames.
SLOW = '''
import time
from pathlib import Path

from examples.my_generator import MyGenerator


class Slow(MyGenerator):
    def decode(self, engines, latents):
        chunks = super().decode(engines, latents)
        yield next(chunks)
        if latents.shape[2] > 1:
            Path(__file__).with_name("ready").touch()
            for _ in range(600):  # Python handles a signal that another thread took between two calls
                time.sleep(0.1)
        yield from chunks
'''


@pytest.fixture
def infer(run_main, tmp_path, tiny_file):
    """A function that runs infer.py on the tiny presenter, into tmp_path/out."""
    return partial(run_main, script, "--generator", f"{tiny_file}:Tiny", "--out", tmp_path / "out")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_becomes_videos_and_stdout_stays_empty(infer, make_data, tmp_path):
    result = infer("--data", make_data({"a": 2, "b": 3}))
    assert result.status == 0 and result.out == ""
    assert result.err.splitlines()[-1] == f"2 of 2 videos are in {tmp_path / 'out'}"
    assert names(tmp_path / "out") == ["a.mp4", "b.mp4", "manifest.jsonl"]


def test_json_prints_one_object_per_line_and_nothing_else(infer, make_data, tmp_path):
    data = make_data({"a": 2, "ż b": 2})
    (data / "videos" / "a.mp4").write_text("not a video")
    result = infer("--data", data, "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["id"], line["status"]) for line in lines] == [("a", "failed"), ("ż b", "done")]
    written = (tmp_path / "out" / "manifest.jsonl").read_text(encoding="utf-8")
    assert lines == [json.loads(line) for line in written.splitlines()]
    assert lines[1]["built"] == {}


def test_the_same_run_twice_gives_equal_files(infer, make_data, tmp_path):
    data, videos = make_data({"a": 18}), []
    for out in ("first", "again"):
        assert infer("--data", data, "--out", tmp_path / out).status == 0
        videos.append((tmp_path / out / "a.mp4").read_bytes())
    assert videos[0] == videos[1]


def test_pairs_csv_names_the_videos_and_seed_counts_where_it_gives_none(infer, make_data, tmp_path):
    data = make_data({"a": 2})
    (data / "pairs.csv").write_text("id,video,image,seed\none,a.mp4,a.png,7\ntwo,a.mp4,a.png,\n")
    result = infer("--data", data, "--seed", 5, "--json")
    seven, five = (json.loads(line) for line in result.out.splitlines())
    assert (seven["seed"], five["seed"]) == (7, 5)
    assert seven["frames_sha256"] != five["frames_sha256"]
    assert names(tmp_path / "out") == ["manifest.jsonl", "one.mp4", "two.mp4"]
    start = seven.pop("start_seconds")
    assert seven.keys() == five.keys()
    assert start["generator"] > 0 < start["engines"] and start["identity"] > 0
    denoise = start["components"]["denoise"]
    assert denoise["read"] > 0 < denoise["load"] and len(denoise["first_calls"]) == 3


def test_one_corrupt_video_of_three_is_status_7_and_the_manifest_says_why(infer, make_data, tmp_path):
    data = make_data({"a": 2, "b": 30, "c": 2})
    video = data / "videos" / "b.mp4"
    video.write_bytes(video.read_bytes()[:1500])
    result = infer("--data", data)
    assert result.status == 7
    assert names(tmp_path / "out") == ["a.mp4", "c.mp4", "manifest.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done", "failed", "done"]
    assert str(video) in lines[1]["error"] and lines[1]["error"] in result.err
    assert "2 of 3 videos are in" in result.err


def test_only_corrupt_videos_are_status_3(infer, make_data, tmp_path):
    data = make_data({"a": 2, "b": 2})
    for path in (data / "videos").iterdir():
        path.write_text("not a video")
    result = infer("--data", data)
    assert result.status == 3 and "0 of 2 videos" in result.err
    assert names(tmp_path / "out") == ["manifest.jsonl"]


def test_a_missing_data_folder_is_status_3_and_makes_nothing(infer, tmp_path):
    result = infer("--data", tmp_path / "nowhere")
    assert result.status == 3
    assert result.err == (f"infer.py: data folder {tmp_path / 'nowhere'} does not exist; "
                          "it needs videos/ and images/ in it; "
                          f"what now? python -m engines doctor --data {tmp_path / 'nowhere'}\n")
    assert not (tmp_path / "out").exists()


def test_an_unwritable_out_is_status_2_before_anything_is_built(infer, make_data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(script, "start_runner", lambda *arguments: pytest.fail("a generator was loaded"))
    result = infer("--data", make_data({"a": 1}), "--out", tmp_path / "file" / "out")
    assert result.status == 2 and "choose another --out" in result.err


@pytest.mark.parametrize(("generator", "text"), [
    ("nope", "no generator 'nope'"), ("nowhere.py:Mine", "generator file nowhere.py does not exist")])
def test_an_unknown_generator_is_status_2(infer, make_data, generator, text):
    result = infer("--data", make_data({"a": 1}), "--generator", generator)
    assert result.status == 2 and text in result.err


def test_missing_weights_are_status_2(infer, make_data, tmp_path, tiny_file):
    (tmp_path / "tiny.py").write_text(tiny_file.read_text())
    result = infer("--data", make_data({"a": 1}), "--generator", f"{tmp_path / 'tiny.py'}:Tiny")
    assert result.status == 2 and "no weights at" in result.err


def test_a_device_of_no_sense_is_status_4(infer, make_data):
    result = infer("--data", make_data({"a": 1}), "--device", "nonsense")
    assert result.status == 4 and "torch cannot use --device nonsense: " in result.err


@pytest.mark.parametrize("arguments", [
    ("--seed", "-1"), ("--seed", "x"), ("--seed", str(2**63)), ("--out", ""), ("--nonsense",),
    ("positional",)])
def test_a_wrong_option_is_status_2(infer, arguments):
    assert infer(*arguments).status == 2


@pytest.mark.parametrize("device", ["cuda:1", "cuda:0,cuda:1", "cpu,cpu"])
def test_ray_hands_out_devices_itself(infer, device):
    """It hides the others from a worker, so that cuda:1 would be none there, and what is listed unused."""
    result = infer("--ray", "local", "--device", device)
    assert result.status == 2
    assert f"--ray and --device {device} do not go together: Ray gives each worker its GPU" in result.err


def test_help_is_status_0_and_names_every_option(infer):
    result = infer("--help")
    assert result.status == 0
    for option in ("--data", "--out", "--generator", "--device", "--seed", "--json"):
        assert option in result.out


# Signals


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for orphans in /proc")
@pytest.mark.parametrize(("number", "to_all", "status"), [
    (signal.SIGTERM, False, 143), (signal.SIGINT, False, 130), (signal.SIGINT, True, 130)],
    ids=["SIGTERM", "SIGINT", "Ctrl-C in a terminal, which ffmpeg gets too"])
def test_a_signal_keeps_finished_videos_and_leaves_no_part_and_no_process(
        make_data, tmp_path, number, to_all, status):
    data, out = make_data({"a": 1, "b": 20, "c": 30}), tmp_path / "out"  # c is read while b is made
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "infer.py", "--generator", f"{tmp_path}/slow.py:Slow", "--data", str(data),
               "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True, preexec_fn=heed_interrupts) as process:
        try:
            wait_for(lambda: (tmp_path / "ready").exists() or process.poll() is not None)
            assert process.poll() is None
            assert len(processes_about(out)) == 2, "infer.py and its ffmpeg should be running"
            assert len(names(out)) == 4  # a.mp4, the manifest, the lock, and the part of b.mp4
            (os.killpg if to_all else os.kill)(process.pid, number)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == status, stderr
    assert names(out) == ["a.mp4", "manifest.jsonl"]
    assert processes_about(tmp_path) == []
    assert stdout == "" and "Traceback" not in stderr
