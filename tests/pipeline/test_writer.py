"""What pipeline.video.writer promises, on real files, full disks and encoders that misbehave."""

import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from bench.frame_metrics import psnr
from engines.errors import UsageError
from pipeline.video import ffmpeg
from pipeline.video.reader import OutputError, VideoWriter, probe, read
from tests.clips import FLOOD, hidden_files, picture_frames, stand_in, write


@pytest.mark.parametrize("count", [1, 2, 7, 24])
def test_round_trip_keeps_number_and_likeness_of_frames(tmp_path, count):
    frames = picture_frames(count)
    clip = read(write(tmp_path / "out.mp4", frames))
    assert clip.frames.shape == (count, 48, 64, 3)
    assert clip.notes == ()
    assert psnr(clip.frames.astype(np.float32) - np.stack(frames)) > 40
    assert hidden_files(tmp_path) == []


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("height, width", [(48, 64), (47, 63)])
def test_lossless_is_exact_at_any_size(tmp_path, suffix, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
    assert np.array_equal(read(write(tmp_path / f"out.{suffix}", frames, lossless=True)).frames, frames)


@pytest.mark.parametrize("fps", [24, 25, 12.5, Fraction(30000, 1001), Fraction(49, 2), 29.97, 1])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_exact_rate_survives_the_round_trip(tmp_path, fps, suffix):
    path = write(tmp_path / f"out.{suffix}", picture_frames(7, 16, 16), fps)
    assert probe(path).fps == Fraction(fps).limit_denominator(1001)


def test_output_is_fully_tagged_as_bt709(tmp_path):
    path = write(tmp_path / "out.mp4", picture_frames(2))
    shown = subprocess.run([ffmpeg.ffmpeg_exe(), "-i", path], capture_output=True, text=True).stderr
    assert "yuv420p(tv, bt709, progressive)" in shown  # one name when matrix, primaries and transfer agree


def test_same_frames_twice_give_the_same_bytes(tmp_path):
    frames = picture_frames(24, 96, 128)
    one, two = (write(tmp_path / f"{name}.mp4", frames) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_frame_array_may_be_used_again_at_once(tmp_path):
    frame = np.zeros((16, 16, 3), np.uint8)
    with VideoWriter(tmp_path / "out.mkv", 16, 16, 24, lossless=True) as writer:
        for level in range(20):
            frame[:] = level
            writer.write(frame)
    assert read(tmp_path / "out.mkv").frames[:, 0, 0, 0].tolist() == list(range(20))


def test_new_file_has_the_usual_permissions(tmp_path):
    write(tmp_path / "out.mp4", picture_frames(1))
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.mp4").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_wrong_frames_are_value_errors_that_leave_nothing(tmp_path):
    good = np.zeros((48, 64, 3), np.uint8)
    wrong = {
        r"uint8 \(64, 48, 3\); expected": np.zeros((64, 48, 3), np.uint8),
        "float32": good.astype(np.float32),
        "list": good.tolist(),
    }
    for message, frame in wrong.items():
        with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / "o.mp4", 64, 48, 24) as writer:
            writer.write(frame)
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "o.mp4", 64, 48, 24):
        pass
    with pytest.raises(ValueError, match="with statement"):
        VideoWriter(tmp_path / "o.mp4", 64, 48, 24).write(good)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_may_lie_in_memory_in_any_way(tmp_path):
    frames = picture_frames(2)
    views = [frames[0].transpose(2, 0, 1).copy().transpose(1, 2, 0), frames[1][..., ::-1].copy()[..., ::-1]]
    for name, given in (("plain", frames), ("views", views)):
        with VideoWriter(tmp_path / f"{name}.mkv", 64, 48, 24, lossless=True) as writer:
            for frame in given:
                writer.write(frame)
    assert (tmp_path / "views.mkv").read_bytes() == (tmp_path / "plain.mkv").read_bytes()


def test_an_odd_size_is_a_usage_error_not_a_bug():
    with pytest.raises(UsageError, match="64 x 47 is odd; yuv420p needs even: crop, or --lossless"):
        VideoWriter("o.mp4", 64, 47, 24)


def test_bad_arguments_are_value_errors(tmp_path):
    for message, arguments, options in [
        ("odd", ("o.mp4", 63, 48, 24), {}),
        ("odd", ("o.mp4", 64, 47, 24), {}),
        ("use .mp4", ("o.avi", 64, 48, 24), {}),
        ("not a video", ("o.mp4", 64, 48, 0), {}),
        ("not a video", ("o.mp4", 0, 48, 24), {}),
        ("crf=5", ("o.mp4", 64, 48, 24), {"crf": 5, "lossless": True}),
    ]:
        with pytest.raises(ValueError, match=message):
            VideoWriter(*arguments, **options)


# Failing


def test_exception_inside_the_block_leaves_nothing_and_keeps_the_old_file(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 64, 48, 24) as writer:
        for frame in picture_frames(30):
            writer.write(frame)
        child = writer._child
        raise KeyboardInterrupt
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert hidden_files(tmp_path) == []
    assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("count", [2, 400])
def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, count):
    program = f"""
import resource, signal, sys, numpy as np
from pathlib import Path
from pipeline.video.reader import OutputError, VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
frames = np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), np.uint8)
try:
    with VideoWriter(Path(sys.argv[1]), 128, 96, 24, preset="ultrafast") as writer:
        for i in range({count}):
            writer.write(frames[i % 4])
except OutputError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, tmp_path / "out.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=os.getcwd())
    assert "out.mp4: " in done.stdout and "Check free space" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames_after", [0, 60])
def test_killed_encoder_is_an_output_error_and_does_not_hang(tmp_path, frames_after):
    begin, frames = time.monotonic(), picture_frames(4, 240, 320)
    with (
        pytest.raises(OutputError, match="SIGKILL"),
        VideoWriter(tmp_path / "out.mp4", 320, 240, 24, stall_seconds=20) as writer,
    ):
        writer.write(frames[0])
        os.kill(writer._child.process.pid, signal.SIGKILL)
        for i in range(frames_after):
            writer.write(frames[i % 4])
    assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


def test_encoder_that_drops_frames_without_an_error_is_found_out(tmp_path, monkeypatch):
    real = ffmpeg.ffmpeg_exe()
    short = "a[-2:-2] = ['-frames:v', '3'] * ('-vf' in a)"
    program = f"import os, sys; a = sys.argv[1:]; {short}; os.execv({real!r}, [{real!r}, *a])"
    stand_in(tmp_path, monkeypatch, program)
    with pytest.raises(OutputError):  # either the broken pipe or the 3 of 5 frames comes first
        write(tmp_path / "out.mp4", picture_frames(5))
    assert [path.name for path in tmp_path.iterdir()] == ["stand_in"]


def test_written_file_is_counted_frame_by_frame(tmp_path, monkeypatch):
    real = VideoWriter.write

    def forget_one(writer, frame):
        real(writer, frame)
        writer._count += writer._count == 3

    monkeypatch.setattr(VideoWriter, "write", forget_one)
    with pytest.raises(OutputError, match="5 of 6 frames"):
        write(tmp_path / "out.mp4", picture_frames(5))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_output_errors(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for path in ("file/out.mp4", "nowhere/out.mp4", "folder.mp4"):
        with pytest.raises(OutputError, match="cannot be written"):
            write(tmp_path / path, picture_frames(1))
    assert hidden_files(tmp_path) == []


def test_flood_of_messages_does_not_hang_the_writer(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, FLOOD)
    begin = time.monotonic()
    with pytest.raises(OutputError, match="code 3: xxx"):
        write(tmp_path / "out.mp4", picture_frames(30), stall_seconds=20)
    assert time.monotonic() - begin < 10
    assert [path.name for path in tmp_path.iterdir()] == ["stand_in"]


def test_stalled_encoder_is_stopped(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(OutputError, match="no progress for 0.5 s"):
        write(tmp_path / "out.mp4", picture_frames(60, 240, 320), stall_seconds=0.5)
    assert time.monotonic() - begin < 10
    assert [path.name for path in tmp_path.iterdir()] == ["stand_in"]


def test_exception_does_not_wait_for_a_stalled_encoder(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(60)")
    begin, frame = time.monotonic(), np.zeros((480, 640, 3), np.uint8)
    writer = VideoWriter(tmp_path / "out.mp4", 640, 480, 24, stall_seconds=8)
    with pytest.raises(KeyboardInterrupt), writer:
        writer.write(frame)
        time.sleep(0.2)  # until the thread hangs in the pipe
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 5


def test_no_process_thread_or_file_is_left_open(tmp_path):
    def open_things():
        time.sleep(0.1)  # for cancelled timers to end
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    write(tmp_path / "out.mp4", picture_frames(3))
    read(tmp_path / "out.mp4")
    before = open_things()
    for _ in range(3):
        write(tmp_path / "out.mp4", picture_frames(3))
        read(tmp_path / "out.mp4")
        with pytest.raises(ValueError), VideoWriter(tmp_path / "out.mp4", 64, 48, 24) as writer:
            writer.write(None)
    assert open_things() == before
