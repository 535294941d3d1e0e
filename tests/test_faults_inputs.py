"""Faults of files and of long runs: mutated inputs, odd videos, damaged engines, growth of a process."""

import json
import multiprocessing
import random
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import infer as script
from engines.artifact import Label, find, writing
from engines.errors import Exit, InputError
from lab.faults.mutations import MUTATIONS, mutated
from pipeline.batch.dataset import Request
from pipeline.runner import VideoRunner
from pipeline.video import ffmpeg
from pipeline.video.reader import VideoReader, read_image
from tests.clips import make, run
from tests.fault_counts import figure, times
from tests.graphs import copy_built
from tests.pipeline.test_ladder import silent

ROOT = Path(__file__).resolve().parent.parent
HANG = 30.0  # seconds


def test_mutated_inputs_are_read_or_refused_with_a_reason(tmp_path, make_image_file):
    draws = random.Random(5)
    sources = [make(tmp_path / f"in.{kind}", size="160x120") for kind in ("mp4", "mkv", "avi")]
    sources += [make_image_file(tmp_path / "in.png"), make_image_file(tmp_path / "in.jpg")]
    count, refused, slowest = times(15, 200), 0, 0.0
    for number in range(count):
        source, kind = sources[number % len(sources)], MUTATIONS[number % len(MUTATIONS)]
        path = tmp_path / f"mutated{source.suffix}"
        path.write_bytes(mutated(source.read_bytes(), kind, draws))
        began, reason = time.monotonic(), None
        try:
            if source.suffix in (".png", ".jpg"):
                assert read_image(path).dtype == np.uint8
            else:
                assert sum(1 for _ in VideoReader(path)) > 0
        except InputError as error:
            reason, refused = str(error), refused + 1
            assert re.match(rf"{re.escape(str(path))}: .*\. ?|.*;", reason), reason
        slowest = max(slowest, time.monotonic() - began)
        if reason is None and source.suffix not in (".png", ".jpg"):
            command = [ffmpeg.ffmpeg_exe(), "-v", "error", *ffmpeg.strict_input(path), "-f", "null", "-"]
            assert subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0, kind
    assert slowest < HANG
    figure(f"F05: {count} mutated inputs: {refused} refused with a reason, the others read; slowest "
           f"{slowest:.1f} s; every failure of ffmpeg -xerror reported")


def test_videos_of_any_form_become_videos_and_one_without_frames_a_reason(plain, tmp_path, make_image_file):
    plainly = make(tmp_path / "plain.mp4")
    drop = ("-vf", "select='not(between(n,5,9))'", "-fps_mode", "passthrough")
    forms = {"rate.mp4": ("-r", "30000/1001"), "drop.mp4": drop, "gray.mp4": ("-pix_fmt", "gray"),
             "ten.mkv": ("-pix_fmt", "yuv420p10le"), "one.mp4": ("-frames:v", "1"),
             "odd.mkv": ("-c:v", "libx264rgb", "-vf", "crop=63:47")}
    paths = [make(tmp_path / name, *options) for name, options in forms.items()]
    run("-display_rotation", "90", "-i", plainly, "-c", "copy", tmp_path / "turned.mp4")
    run("-i", plainly, "-f", "lavfi", "-i", "sine=d=1", "-c:v", "copy", tmp_path / "loud.mp4")
    run("-f", "lavfi", "-i", "sine=d=1", tmp_path / "none.mp4")
    image, generator, counts = make_image_file(tmp_path / "a.png"), plain(steps=1), {}
    for path in [*paths, *(tmp_path / f"{name}.mp4" for name in ("turned", "loud", "none"))]:
        (out := tmp_path / "out").mkdir(exist_ok=True)
        request = Request(path.stem, path, image, 1)
        line, _ = VideoRunner(generator, generator.engines())(request, out, silent)
        counts[path.stem] = line.get("frames") or line["error"]
    reason = counts.pop("none")
    assert "has no video stream" in reason
    assert counts == {"rate": 30, "drop": 19, "gray": 24, "ten": 24, "one": 1, "odd": 24, "turned": 24,
                      "loud": 24}


def test_one_bad_video_of_ten_costs_no_other(make_data, run_main, tmp_path, tiny_file):
    data = make_data({str(number): 2 for number in range(10)})
    (data / "videos" / "4.mp4").write_bytes(b"\0" * 5000)
    answer = run_main(script, "--generator", f"{tiny_file}:Tiny", "--data", data, "--out", tmp_path / "out")
    assert answer.status == Exit.SOME_FAILED and len(list((tmp_path / "out").glob("*.mp4"))) == 9


@pytest.mark.parametrize("name", ["a" * 200, "跳舞" * 30, "a b.c d", "-v", "%03d"])
def test_long_and_strange_names_are_kept(make_data, plain, tmp_path, name):
    data = make_data({"a": 2})
    video, image = data / "videos" / f"{name}.mp4", data / "images" / f"{name}.png"
    (data / "videos" / "a.mp4").rename(video), (data / "images" / "a.png").rename(image)
    generator = plain()
    (out := tmp_path / "out").mkdir()
    line, reason = VideoRunner(generator, generator.engines())(Request(name, video, image, 1), out, silent)
    assert reason is Exit.OK and [path.name for path in out.iterdir()] == [f"{name}.mp4"], line


def test_a_changed_byte_of_an_engine_is_status_4_and_names_the_file(
        make_data, run_main, tmp_path, tiny_file, tiny_built, monkeypatch):
    copy_built(tiny_built, tmp_path / "built")
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    (graph,) = (tmp_path / "built" / "tiny").glob("denoise-fp32-*.onnx")
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    infer = partial(run_main, script, "--generator", f"{tiny_file}:Tiny", "--data", make_data({"a": 2}))
    answer = infer("--out", tmp_path / "out", "--backend", "openvino")
    assert answer.status == Exit.ENVIRONMENT
    assert f"the bytes of {graph.name} changed since it was built" in answer.err
    automatic = infer("--out", tmp_path / "out", "--backend", "auto")
    assert automatic.status == 0 and f"not openvino: {graph.name} does not fit" in automatic.err
    assert "backend: torch" in automatic.err


LABEL = Label("denoise", "fp32", ".onnx")


def build(folder, writer):
    """Write an artifact again and again; run in processes of its own."""
    for turn in range(20):
        with writing(Path(folder), LABEL, {"of": "all"}) as draft:
            draft.path.write_bytes(bytes([writer, turn]) * 20_000)


def test_four_writers_at_once_never_leave_a_damaged_engine(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=build, args=(str(tmp_path), writer)) for writer in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    content = find(tmp_path, LABEL, {"of": "all"}, "").path.read_bytes()
    assert len(content) == 40_000 and len(set(content[::2])) == 1
    assert not list(tmp_path.glob(".new-*"))
    figure("F13: 4 processes wrote one artifact 20 times each: the last one is whole")


GROWTH = """
import json, os, re, sys, threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from generators.contract import load_generator
from pipeline.recipe import BASELINE
from pipeline.batch.dataset import Request
from pipeline.runner import Settings, start_runner
out, video, image, count = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
maker = start_runner(Settings(sys.argv[5]), print)
for number in range(count):
    request = Request(f"v{number % 3}", video, image, number)
    line, _ = maker(request, out, lambda total: nullcontext(SimpleNamespace(tick=lambda: None)))
    assert line["status"] == "done", line
    kb = int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    print(json.dumps([kb, len(os.listdir("/proc/self/fd")), threading.active_count()]), flush=True)
"""


def test_many_videos_take_no_more_memory_files_or_threads_than_few(
        tmp_path, make_video_file, make_image_file, tiny_file):
    count = times(15, 200)
    video, image = make_video_file(tmp_path / "a.mp4", 4), make_image_file(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    arguments = [tmp_path / "out", video, image, count, f"{tiny_file}:Tiny"]
    answer = subprocess.run([sys.executable, "-c", GROWTH, *map(str, arguments)], cwd=ROOT, check=True,
                            stdout=subprocess.PIPE, text=True)
    seen = np.array([json.loads(line) for line in answer.stdout.splitlines()])
    later = seen[5:]  # the first ones load what stays
    slope = np.polyfit(np.arange(len(later)), later[:, 0] / 1024, 1)[0]
    files, threads = (sorted(set(later[:, column].tolist())) for column in (1, 2))
    assert len(seen) == count and slope < 0.5
    assert len(files) == 1 and threads[-1] - threads[0] <= 1  # a timer of ffmpeg's may just be ending
    figure(f"F14: {count} videos in one process: resident memory grows by {slope * 1024:.1f} KiB a video to "
           f"{seen[-1, 0] / 1024:.0f} MiB; open files {files}, threads {threads}")


def test_only_the_age_of_leftovers_is_told_by_the_clock_on_the_wall():
    """A clock that jumps must not change a duration, a limit or a result.

    hashes.py asks whether a file has changed just now; then its hash is not remembered.
    """
    allowed = {"engines/artifact.py": 1, "engines/hashes.py": 1}
    found = {}
    for room in ("engines", "generators", "optimize", "pipeline", "bench", "submit", "finish"):
        for path in (ROOT / room).rglob("*.py"):
            count = len(re.findall(r"\btime\.time\(\)|datetime\.now\(\)", path.read_text(encoding="utf-8")))
            if count:
                found[path.relative_to(ROOT).as_posix()] = count
    assert found == allowed
