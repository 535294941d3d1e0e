"""What pipeline.video.reader promises of reading, on real files made here by ffmpeg."""

import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from bench.frame_metrics import psnr
from pipeline.video import ffmpeg
from pipeline.video.reader import InputError, VideoReader, probe, read
from tests.clips import FLOOD, TICKING, make, picture_frames, run, stand_in, write


@pytest.mark.parametrize("rate", ["24", "25", "16", "30000/1001", "24000/1001", "25/2"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_exact_rate_of_a_file_is_read(tmp_path, rate, suffix):
    info = probe(make(tmp_path / f"in.{suffix}", rate=rate))
    assert (info.fps, info.variable_rate) == (Fraction(rate), False)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_video_gives_exactly_its_coded_frames(tmp_path, suffix):
    choose = "select='not(between(n,10,20))'"
    path = make(tmp_path / f"in.{suffix}", "-vf", choose, "-fps_mode", "passthrough", rate=30, seconds=2)
    clip = read(path)
    assert len(clip.frames) == 49
    assert abs(clip.fps - Fraction(48) / (Fraction(59, 30))) < Fraction(1, 50)
    assert "variable frame rate" in clip.notes[0]


def test_frame_dropped_from_a_coarse_time_base_is_seen_as_variable_rate():
    assert not ffmpeg.evenly_spaced([0, 1, 3], Fraction(1, 24), Fraction(24))


@pytest.mark.parametrize("size", ["63x47", "64x47", "1x1"])
def test_odd_size_is_read(tmp_path, size):
    clip = read(make(tmp_path / "in.mkv", "-c:v", "libx264rgb", size=size, source="color=red:", seconds=0.25))
    width, height = map(int, size.split("x"))
    assert clip.frames.shape == (6, height, width, 3)


def test_rotated_video_is_upright(tmp_path):
    flat = make(tmp_path / "flat.mp4")
    run("-display_rotation", "90", "-i", flat, "-c", "copy", tmp_path / "turned.mp4")
    turned = read(tmp_path / "turned.mp4")
    assert turned.frames.shape == (24, 64, 48, 3)
    # Chroma may be interpolated in another order after the turn, so equality holds up to a few levels.
    upright = np.rot90(read(flat).frames, 1, (1, 2)).astype(int)
    assert np.abs(turned.frames - upright).mean() < 2


@pytest.mark.parametrize("kind", ["yuv420p10le", "gray", "yuv444p"])
def test_other_pixel_formats_are_read_as_8_bit_rgb(tmp_path, kind):
    clip = read(make(tmp_path / "in.mp4", "-pix_fmt", kind, "-crf", "5"))
    plain = read(make(tmp_path / "plain.mkv", "-c:v", "libx264rgb", "-crf", "0"))
    if kind == "gray":
        assert np.ptp(clip.frames, axis=-1).max() <= 1
    else:
        assert psnr(clip.frames.astype(np.float32) - plain.frames) > 20
    assert clip.frames.shape == plain.frames.shape


def test_sound_and_cover_art_do_not_disturb(tmp_path):
    make(tmp_path / "silent.mp4")
    run("-i", tmp_path / "silent.mp4", "-f", "lavfi", "-i", "sine=d=2", "-c:v", "copy", tmp_path / "loud.mp4")
    assert np.array_equal(read(tmp_path / "loud.mp4").frames, read(tmp_path / "silent.mp4").frames)


def test_colours_follow_the_tag_and_untagged_means_bt601(tmp_path):
    red = ("-f", "lavfi", "-i", "color=red:s=1280x720:d=0.1,format=yuv420p")  # converted with BT.601
    run(*red, "-qp", "0", tmp_path / "untagged.mp4")
    retag = "h264_metadata=matrix_coefficients=1"
    run("-i", tmp_path / "untagged.mp4", "-c", "copy", "-bsf:v", retag, tmp_path / "tagged.mp4")
    assert np.abs(read(tmp_path / "untagged.mp4").frames[0, 0, 0].astype(int) - (255, 0, 0)).max() <= 3
    assert read(tmp_path / "tagged.mp4").frames[0, 0, 0, 1] > 15


@pytest.mark.parametrize("kind", ["flat", "ramp"])
def test_written_frames_are_read_without_a_bias(tmp_path, kind):
    y, x = np.mgrid[:96, :64]
    if kind == "ramp":
        frames = [np.stack([x * 4, y * 8 // 3, (x + y) * 255 // 158], -1).astype(np.uint8)] * 3
    else:
        colours = np.random.default_rng(0).integers(0, 256, (24, 3), np.uint8)
        frames = [np.broadcast_to(colour, (96, 64, 3)).copy() for colour in colours]
    error = read(write(tmp_path / "it.mp4", frames)).frames.astype(float) - np.stack(frames)
    assert np.abs(error.mean((0, 1, 2))).max() < 0.25  # 0.9 to 1.6 with ffmpeg's fast conversion
    if kind == "flat":
        assert np.abs(error).max() <= 2 and (np.abs(error) <= 1).mean() > 0.95


def test_second_iteration_starts_again(tmp_path):
    with VideoReader(make(tmp_path / "in.mp4")) as reader:
        first = next(iter(reader))
        assert np.array_equal(first, next(iter(reader)))
        assert len(list(reader)) == 24


def test_closing_the_reader_ends_its_ffmpeg(tmp_path):
    with VideoReader(make(tmp_path / "in.mp4", size="640x480")) as reader:
        next(frames := iter(reader))
        child = reader._child
    assert child.process.poll() is not None
    del frames


def test_limits_are_input_errors(tmp_path):
    path = make(tmp_path / "in.mp4")
    assert len(read(path, max_frames=24).frames) == 24
    with pytest.raises(InputError, match="more than 23 frames.*Cut"):
        read(path, max_frames=23)
    with pytest.raises(InputError, match="64 x 48, above the limit of 3071.*Scale"):
        read(path, max_pixels=3071)


def test_names_that_look_like_options_and_patterns_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-i %03d.mp4", "http:人 物.mp4"):
        write(name, picture_frames(2))
        assert len(read(name).frames) == 2


def test_frames_keep_the_first_size_when_the_stream_changes_it_and_a_lost_one_is_noted(tmp_path):
    names = [make(tmp_path / f"{size}.ts", size=size).name for size in ("64x48", "96x80")]
    (tmp_path / "list").write_text("".join(f"file {name}\n" for name in names))
    run("-f", "concat", "-i", tmp_path / "list", "-c", "copy", tmp_path / "in.ts")
    clip = read(tmp_path / "in.ts")
    assert clip.frames.shape == (47, 48, 64, 3)  # the decoder loses one at the change
    assert "47 frames from 48 packets" in clip.notes[0]


def test_clip_and_reader_agree(tmp_path):
    path = make(tmp_path / "in.mp4")
    with VideoReader(path) as reader:
        frames = np.stack(list(reader))
    clip = read(path)
    assert np.array_equal(frames, clip.frames) and clip.fps == reader.fps == 24
    assert (reader.width, reader.height) == (64, 48)


# Damage


@pytest.mark.parametrize(
    "content, reason",
    [(b"", "empty"), (b"hello\n" * 500, "is not a video"), (bytes(5000), "is not a video")],
)
@pytest.mark.parametrize("name", ["in.mp4", "in.txt"])
def test_empty_text_and_zero_files_are_input_errors(tmp_path, content, reason, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{reason}.*\. "):
        read(tmp_path / name)


def test_missing_file_and_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_sound_alone_is_an_input_error_even_with_cover_art(tmp_path):
    run("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    Image.new("RGB", (64, 64)).save(tmp_path / "cover.png")
    cover = ("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic")
    run("-i", tmp_path / "sound.mp4", "-i", tmp_path / "cover.png", *cover, tmp_path / "cover.mp4")
    for name in ("sound.mp4", "cover.mp4"):
        with pytest.raises(InputError, match="no video stream"):
            read(tmp_path / name)


def test_video_stream_without_frames_is_an_input_error(tmp_path):
    make(tmp_path / "in.mkv")
    run("-i", tmp_path / "in.mkv", "-c", "copy", "-frames:v", "0", tmp_path / "none.mkv")
    with pytest.raises(InputError, match="is not a video"):
        read(tmp_path / "none.mkv")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_truncated_file_is_an_input_error(tmp_path, suffix):
    faststart = ("-movflags", "+faststart") if suffix == "mp4" else ()
    path = make(tmp_path / f"in.{suffix}", *faststart, seconds=3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated"):
        read(path)


def test_mp4_cut_exactly_between_two_frames_is_an_input_error(tmp_path):
    path = make(tmp_path / "in.mp4", "-movflags", "+faststart", "-bf", "0")
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    for _ in range(12):  # each frame: NAL units behind their 4-byte lengths, until the next slice begins
        slice_type = 0
        while slice_type not in (1, 5):
            slice_type = data[start + 4] & 31
            start += 4 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start])
    decode = [ffmpeg.ffmpeg_exe(), "-v", "error", *ffmpeg.strict_input(path), "-f", "null", "-"]
    listed = subprocess.run(decode, capture_output=True)
    assert (listed.returncode, listed.stderr) == (0, b"")  # ffmpeg alone is content with half of the frames
    with pytest.raises(InputError, match="truncated"):
        read(path)


def test_flipped_bits_are_an_input_error(tmp_path):
    path = make(tmp_path / "in.mp4", "-preset", "medium", size="160x120", seconds=2)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat"), data.index(b"moov")
    for at in np.random.default_rng(1).integers(start + (end - start) // 3, end - 100, 20):
        data[at] ^= 16
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or truncated after"):
        read(path)


def test_damage_found_late_still_gives_the_good_frames_first(tmp_path):
    path = make(tmp_path / "in.mkv", seconds=3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    frames = iter(VideoReader(path))
    assert next(frames).shape == (48, 64, 3)
    with pytest.raises(InputError, match="prematurely"):
        list(frames)


def test_flood_of_messages_does_not_hang_the_reader(tmp_path, monkeypatch):
    path = make(tmp_path / "in.mp4")
    stand_in(tmp_path, monkeypatch, FLOOD)
    begin = time.monotonic()
    with pytest.raises(InputError, match="code 3: xxx"):
        probe(path, stall_seconds=20)
    assert time.monotonic() - begin < 10


def test_a_look_that_goes_on_and_on_is_stopped(tmp_path, monkeypatch):
    path = make(tmp_path / "in.mp4")
    stand_in(tmp_path, monkeypatch, TICKING)
    begin = time.monotonic()
    with pytest.raises(InputError, match="took more than 0.3 s to look at. Cut it"):
        probe(path, total_seconds=0.3)
    assert time.monotonic() - begin < 10


def test_stalled_decoder_is_stopped_and_a_slow_caller_is_not(tmp_path, monkeypatch):
    path = make(tmp_path / "in.mp4", size="320x240")
    slow = VideoReader(path, stall_seconds=0.6)
    frames = iter(slow)
    next(frames)
    time.sleep(0.8)
    assert len(list(frames)) == 23
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(InputError, match="no progress for 0.6 s"):
        list(slow)


def test_import_loads_neither_pillow_nor_imageio_ffmpeg():
    names = "{'PIL', 'imageio_ffmpeg', 'torch'}"
    program = f"import sys, pipeline.video.reader; print({names} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
