"""When frames are shown: edit lists, starts, gaps and rates, as decoding tells them, and what is refused."""

import json
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import infer
from engines.errors import Exit
from pipeline.video.reader import InputError, VideoReader, VideoWriter, probe, read
from pipeline.video.times import Times
from tests.clips import make, picture_frames, run, write

SHARED = Path(__file__).parents[3] / "shared"
CASES, MADE = SHARED / "cases" / "media", SHARED / "real" / "made"
cases = pytest.mark.skipif(not CASES.is_dir(), reason="the small inputs that failed are not here")
made = pytest.mark.skipif(not MADE.is_dir(), reason="the real inputs are not here")
LISTING = "#tb 0: {}\n#dimensions 0: 64x48\n"


def listed(rows, unit="1/24"):
    return Times.of_packets(LISTING.format(unit) + "".join(f"0, {row}\n" for row in rows))


def times(*ticks, unit=Fraction(1, 24)):
    return Times(np.array(ticks), unit)


def test_packets_that_an_edit_list_leaves_out_are_no_frames():
    rows = ["-2, -2, 1, 9, 0x1, F=0x5", "-1, -1, 1, 9, 0x1, F=0x4",
            "0, 0, 1, 9, 0x1, F=0x0, S=1, X, 0x4", "1, 1, 1, 9, 0x1"]
    found, sure = listed(rows)
    assert found.ticks.tolist() == [0, 1] and sure


@pytest.mark.parametrize("rows", [
    ["0, NOPTS, 1, 9, 0x1", "1, 1, 1, 9, 0x1"],
    ["0, -9223372036854775808, 1, 9, 0x1", "1, 1, 1, 9, 0x1"],
    ["0, 0, 1, 9, 0x1", "1, 0, 1, 9, 0x1"],
    ["0, 2, 1, 9, 0x1", "1, 0, 1, 9, 0x1"],
])
def test_packets_that_do_not_say_all_times_are_not_sure(rows):
    assert not listed(rows)[1]


def test_times_of_decoded_frames_are_in_the_packets_unit():
    rows = "".join(f"0, 0, {at}, 1, 9, 0x1\n" for at in (0, 41667, 83333))
    listing = LISTING.format("1/1000000") + rows
    assert times(unit=Fraction(1, 12288)).decoded(listing).ticks.tolist() == [0, 512, 1024]


@pytest.mark.parametrize(("ticks", "rate", "variable"), [
    (range(48), 24, False),
    ([*range(25), 28], 24, False),  # a cut between frames that refer to each other
    ([*range(30), 31, 33, 34], 24, False),
    ([*range(4), 7, 9], Fraction(120, 9), True),  # too short to tell
    ([*range(30), 60], 12, True),
    ([*range(10), *range(21, 60)], Fraction(48 * 24, 59), True),
    ([0, 2, 4, 6], 12, False),
    ([3, 3], 24, False),
])
def test_the_rate_is_the_streams_own_where_the_times_agree(ticks, rate, variable):
    assert times(*ticks).rate(Fraction(24)) == (pytest.approx(rate, rel=1e-3), variable)


def test_seconds_are_those_of_begins_and_of_the_last_ones_end():
    assert times(24, 25, 30).seconds(Fraction(12)) == pytest.approx([1, 25 / 24, 1.25, 1.25 + 1 / 12])


@pytest.mark.parametrize("suffix", ["avi", "mpg", "ts", "mkv", "mov"])
def test_every_frame_has_a_time_in_every_container(tmp_path, suffix):
    codec = ("-c:v", "mpeg2video") if suffix == "mpg" else ("-c:v", "mpeg4") if suffix == "avi" else ()
    info = probe(make(tmp_path / f"a.{suffix}", *codec, "-bf", "2", rate="25"))
    assert (info.frames, info.fps, info.variable_rate) == (25, 25, False)
    assert np.diff(info.begins) == pytest.approx(np.full(25, 0.04))


def test_a_file_that_has_to_be_decoded_for_its_times_says_where_it_is_damaged(tmp_path):
    path = make(tmp_path / "a.avi", "-bf", "2", seconds=2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a.avi: is damaged or truncated \("):
        probe(path)


def trimmed(folder, suffix="mp4"):
    """A second and a half of four, cut from between key frames without coding anew; and the whole."""
    whole = make(folder / "whole.mp4", "-preset", "medium", "-g", "96", seconds=4)
    run("-ss", "1.5", "-i", whole, "-t", "1.5", "-c", "copy", folder / f"cut.{suffix}")
    return folder / f"cut.{suffix}", whole


def test_an_edit_list_shows_its_frames_at_their_rate_without_a_word(tmp_path):
    path, whole = trimmed(tmp_path)
    clip, frames = read(path), read(whole).frames
    assert clip.fps == 24 and clip.notes == () and probe(path).frames == len(clip.frames) < 40
    assert np.array_equal(clip.frames[:30], frames[36:66])


def test_picture_that_begins_after_the_sound_has_the_files_time(tmp_path):
    video, tone = make(tmp_path / "a.mp4"), ("-f", "lavfi", "-i", "sine=d=4")
    for suffix in ("mp4", "mkv", "ts"):
        out = tmp_path / f"late.{suffix}"
        run("-itsoffset", "2", "-i", video, *tone, "-c:v", "copy", out)
        assert probe(out).begins[0] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("aspect", "size"), [("2", (128, 48)), ("1/2", (64, 96)), ("1", (64, 48))])
def test_square_pixels_lose_none(tmp_path, aspect, size):
    path = make(tmp_path / "a.mp4", "-vf", f"setsar={aspect}")
    with VideoReader(path, square=True) as reader:
        assert (reader.width, reader.height) == size == next(iter(reader)).shape[1::-1]
        assert reader.info.pixel_aspect == Fraction(aspect)
    assert read(path).frames.shape[1:] == (48, 64, 3)
    with pytest.raises(InputError, match=r"frames of 640 x 48, above the limit of 30000 pixels"):
        VideoReader(make(tmp_path / "b.mp4", "-vf", "setsar=10"), square=True, max_pixels=30_000)


def test_a_frame_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    path = make(tmp_path / "a.mkv", "-c:v", "png", size="2000x2000", rate="1")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(InputError, match="frames of 2000 x 2000, above the limit of 1000000 pixels"):
        probe(path, max_pixels=1_000_000)
    with pytest.raises(InputError, match="is not a video"):
        probe(path)


@pytest.mark.parametrize("rate", ["1200", "1/2000"])
def test_a_rate_that_cannot_be_written_is_refused_by_name(tmp_path, rate):
    path = make(tmp_path / "a.mp4", rate="24", seconds=0.1)
    times = f"setts=pts=N/({rate})/TB:dts=N/({rate})/TB"
    run("-r", rate, "-i", path, "-c", "copy", "-bsf:v", times, tmp_path / "b.mp4")
    with pytest.raises(InputError, match=r"b.mp4: has (1200|0.0005) frames/s, where 0.001 to 1000 can"):
        probe(tmp_path / "b.mp4")
    with pytest.raises(ValueError, match="is not a video"):
        VideoWriter(tmp_path / "c.mp4", 64, 48, Fraction(rate))


def test_the_slowest_rate_that_is_taken_can_be_written(tmp_path):
    path = write(tmp_path / "a.mp4", picture_frames(2), Fraction(1, 1001))
    assert probe(path).fps == Fraction(1, 1001)


@cases
@pytest.mark.parametrize("name", ["fps2000", "fps_1_5000", "gap10h_zerodiv"])
def test_files_that_ended_a_run_are_input_errors(name):
    with pytest.raises(InputError, match=f"{name}.mp4: has .* frames/s"):
        probe(CASES / f"{name}.mp4")


@cases
@pytest.mark.parametrize(("name", "frames", "rate"), [("skeleton", 26, 24), ("trim", 52, 25)])
def test_files_with_an_edit_list_are_their_shown_frames(name, frames, rate):
    clip = read(CASES / f"{name}_editlist.mp4")
    assert (len(clip.frames), clip.fps, clip.notes) == (frames, rate, ())


def test_an_mp4_whose_inner_boxes_claim_to_be_endless_is_an_input_error(tmp_path):
    track = struct.pack(">I4sQ", 1, b"trak", 1 << 63) + struct.pack(">I4sQ", 1, b"free", 1 << 62)
    path = tmp_path / "a.mp4"
    path.write_bytes(struct.pack(">I4sI4s", 8, b"ftyp", 0, b"moov") + track)
    with pytest.raises(InputError, match="is not a video"):
        probe(path)


@cases
def test_files_that_ended_a_run_end_their_own_video_only(tiny_file, make_data, run_main, tmp_path):
    data, refused = make_data({"a": 2}), ("fps2000", "fps_1_5000", "gap10h_zerodiv")
    for name in (*refused, "skeleton_editlist"):
        shutil.copy(CASES / f"{name}.mp4", data / "videos")
        shutil.copy(data / "images" / "a.png", data / "images" / f"{name}.png")
    command = ["--generator", f"{tiny_file}:Tiny", "--data", data, "--out", tmp_path / "out", "--json"]
    answer = run_main(infer, *command)
    lines = {each["id"]: each for each in map(json.loads, answer.out.splitlines())}
    assert answer.status == Exit.SOME_FAILED
    assert all("frames/s" in lines[name]["error"] for name in refused)
    assert {each.stem for each in (tmp_path / "out").glob("*.mp4")} == {"a", "skeleton_editlist"}
    assert (lines["skeleton_editlist"]["fps"], lines["skeleton_editlist"]["frames"]) == ("24", 26)


@made
def test_real_files_have_the_times_they_were_made_with():
    late, uneven = probe(MADE / "late_video.mp4"), probe(MADE / "vfr.mp4")
    assert late.begins[[0, -1]] == pytest.approx([8, 18])
    assert np.diff(uneven.begins)[:17] == pytest.approx(np.full(17, 0.28))
    assert uneven.variable_rate and uneven.times.densest() == 25
    assert probe(MADE / "skeleton-sar2.mp4").square == (512, 768)
