"""VMAF pairs frames by their number, and where it cannot be had there is none."""

import json
import subprocess
from fractions import Fraction

import cv2
import numpy as np
import pytest

from bench.vmaf import SMALLEST, VmafError, vmaf
from pipeline.video.ffmpeg import ffmpeg_exe
from pipeline.video.reader import Form, read
from tests.clips import picture_frames, stand_in, write

FILTERS = subprocess.run([ffmpeg_exe(), "-hide_banner", "-filters"], capture_output=True, text=True).stdout
needs_filter = pytest.mark.skipif("libvmaf" not in FILTERS, reason="this ffmpeg has no libvmaf")
TEXTURE = np.random.default_rng(0).integers(40, 216, (24, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
FRAMES = [np.roll(TEXTURE, 3 * i, 1) for i in range(12)]  # (96, 64, 3)
BLURRED = [cv2.GaussianBlur(frame, (0, 0), 2) for frame in FRAMES]


def of(reference, candidate):
    form = Form.of(read(reference))
    return vmaf(reference, candidate, form.frames, form.size)


@pytest.fixture
def reference(tmp_path):
    return write(tmp_path / "reference.mp4", FRAMES)


@needs_filter
def test_a_copy_is_near_the_top_and_a_blurred_video_below_whatever_its_name(reference, tmp_path):
    blurred = write(tmp_path / "a 'b',[0:v];%d.mp4", BLURRED)
    assert of(reference, reference) > 97
    assert of(reference, blurred) < 50 < of(blurred, reference)  # sharper than its reference


@needs_filter
def test_frames_are_paired_by_number_whatever_the_rate_and_the_container(reference, tmp_path):
    for fps, suffix in ((25, "mp4"), (Fraction(30000, 1001), "mp4"), (24, "mkv"), (12, "mkv")):
        assert of(reference, write(tmp_path / f"other.{suffix}", FRAMES, fps)) > 97
    assert of(reference, write(tmp_path / "late.mp4", FRAMES[:1] + FRAMES[:-1])) < 50


@needs_filter
def test_colours_are_converted_alike_before_they_are_compared(tmp_path):
    blue = [frame * np.array((0, 0, 1), np.uint8) for frame in FRAMES]
    one, other = write(tmp_path / "a.mp4", blue), write(tmp_path / "rgb.mkv", blue, lossless=True)
    assert of(one, other) > 98  # 96 where one of them is taken to BT.601


def test_small_pictures_have_none(tmp_path):
    small = write(tmp_path / "small.mp4", picture_frames(3, SMALLEST - 2, 64))
    assert of(small, small) is None


@needs_filter
def test_the_smallest_picture_has_one(tmp_path):
    small = write(tmp_path / "small.mp4", picture_frames(1, SMALLEST, SMALLEST))
    assert of(small, small) > 90


def answer(tmp_path, monkeypatch, program):
    stand_in(tmp_path, monkeypatch, program)
    return vmaf(tmp_path / "a.mp4", tmp_path / "b.mp4", 2, (64, 64))


def test_an_ffmpeg_without_the_filter_has_none(tmp_path, monkeypatch):
    said = "[AVFilterGraph @ 0x5581] No such filter: 'libvmaf'\\nError : Filter not found\\n"
    assert answer(tmp_path, monkeypatch, f"import sys; sys.stderr.write({said!r}); sys.exit(8)") is None


@pytest.mark.parametrize(("program", "text"), [
    ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
    ("", "ended with code 0: no message"),
    (f"print({json.dumps({'frames': [{}]})!r})", "measured on 1 of 2 frames"),
    ("print('{')", "its log is no JSON"),
])
def test_what_goes_wrong_is_said(tmp_path, monkeypatch, program, text):
    with pytest.raises(VmafError, match=text):
        answer(tmp_path, monkeypatch, program)
