"""Short memory: smaller chunks give the same frames, and it is said; numbers that are none; limits."""

import re
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from engines.errors import Exit, InputError
from engines.load import Choice, start_engines
from generators.mimicmotion.generator import MimicMotion
from generators.wan.generator import Wan
from pipeline.batch.dataset import Request
from pipeline.request import Limits, Options, make_video
from pipeline.runner import VideoRunner
from pipeline.video.reader import VideoReader, probe, read
from tests.clips import make, told

LEVELS = 1  # by which a frame may differ: other sums in another order, rounded


@pytest.fixture
def request_of(tmp_path, make_video_file, make_image_file):
    """A request of so many frames."""
    def make(frames):
        video = make_video_file(tmp_path / "in" / "a.mp4", frames)
        return Request("a", video, make_image_file(tmp_path / "in" / "a.png"), 1)
    return make


def silent(total):
    return nullcontext(SimpleNamespace(tick=lambda: None))


class Scarce:
    """An engine that has memory for so many frames at once."""

    def __init__(self, engine, most):
        self.spec, self._engine, self._most = engine.spec, engine, most

    def __call__(self, **arrays):
        (array,) = arrays.values()
        if len(array) > self._most:
            raise MemoryError(f"no room for {len(array)}")
        return self._engine(**arrays)


@pytest.fixture(params=["torch", "onnxruntime", "openvino"])
def engines(request, tiny, tiny_built):
    """The tiny presenter's engines on each backend."""
    choice = Choice(request.param, dict.fromkeys(tiny.components, "fp32"), "cpu", tiny_built / tiny.name)
    return start_engines(tiny, choice, lambda text: None)[1]


@pytest.mark.parametrize(("component", "stage"), [("encode", "condition"), ("decode", "decode")])
def test_every_rung_gives_the_same_frames_and_is_told(
        tiny, engines, request_of, tmp_path, component, stage):
    request, options, clips = request_of(21), Options(lossless=True), []
    for most in (8, 4, 1):
        scarcely = {**engines, component: Scarce(engines[component], most)}
        made = make_video(request, tmp_path / f"{most}.mp4", tiny, scarcely, silent, options)
        clips.append(read(tmp_path / f"{most}.mp4").frames.astype(int))
        chunk_by_stage = [chunk for chunk in (4, 2, 1) if chunk >= most]
        assert made["frames"] == 21 and made["chunks"] == ({stage: most} if chunk_by_stage else {})
        assert told(made["notes"]) == [
            f"memory ran out in {stage} (no room for {2 * chunk}); done again {chunk} frames at a time"
            for chunk in chunk_by_stage]
    assert max(np.abs(clip - clips[0]).max() for clip in clips) <= LEVELS and clips[0].std() > 5


def test_a_stage_that_a_smaller_chunk_gives_no_memory_is_not_tried_again(plain, request_of, tmp_path):
    generator, calls = plain(), []
    generator.chunked = frozenset({"condition"})

    def decode(latents):
        calls.append(len(latents))
        raise MemoryError("no room")

    maker = VideoRunner(generator, {**generator.engines(), "decode": decode})
    line, reason = maker(request_of(20), tmp_path, silent)
    assert reason is Exit.EXHAUSTED and line["error"] == "no room" and len(calls) == 1


def test_generators_say_which_of_their_stages_go_by_the_chunk():
    assert Wan.chunked == frozenset() and MimicMotion.chunked == {"condition"}


def test_decoding_goes_on_where_memory_ran_out(plain, request_of, tmp_path):
    hashes = []
    for bad in (None, 1, 2):  # the number of the chunk that is one too many, once
        generator, calls = plain(), iter(range(100))
        engines = generator.engines()

        def decode(latents, whole=engines["decode"], calls=calls, bad=bad):
            if next(calls) == bad:
                raise MemoryError
            return whole(latents)

        engines["decode"] = decode
        made = make_video(request_of(20), tmp_path / "a.mp4", generator, engines, silent)
        hashes.append(made["frames_sha256"])
        assert made["chunks"] == ({"decode": 4} if bad else {}) and made["frames"] == 20
    assert len(set(hashes)) == 1


def test_with_room_enough_there_is_no_rung(tiny, tiny_engines, request_of, tmp_path):
    made = make_video(request_of(9), tmp_path / "a.mp4", tiny, tiny_engines, silent)
    assert made["chunks"] == {} and told(made["notes"]) == []


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_memory_too_short_for_any_rung_fails_the_video_and_leaves_nothing(
        plain, request_of, tmp_path, stage):
    def full(**arrays):
        raise MemoryError(f"no room in {stage}")

    generator = plain()
    maker = VideoRunner(generator, {**generator.engines(), stage: full})
    line, reason = maker(request_of(20), tmp_path, silent)
    assert reason is Exit.EXHAUSTED and line["status"] == "failed" and line["error"] == f"no room in {stage}"
    assert [path.name for path in tmp_path.iterdir()] == ["in"] and generator.chunk == 8


def test_what_failed_is_no_longer_in_memory_when_it_is_tried_again(plain, request_of, tmp_path):
    import weakref

    held = []

    def decode(engines, latents):
        big = np.zeros(1000)
        if not held:
            held.append(weakref.ref(big))
            raise MemoryError("once")
        assert held[0]() is None
        yield from whole(engines, latents)

    generator = plain()
    whole, generator.decode = generator.decode, decode
    made = make_video(request_of(20), tmp_path / "a.mp4", generator, generator.engines(), silent)
    assert made["chunks"] == {"decode": 4}


# Numbers that are none


def test_a_step_that_is_not_finite_fails_the_video_at_once(plain, request_of, tmp_path):
    generator = plain()
    flow, asked = generator.flow, []

    def spoilt(conditional, latents, pose):
        asked.append(1)
        return flow(conditional, latents, pose) * np.float32(np.nan if len(asked) == 3 else 1)

    generator.flow = spoilt
    line, reason = VideoRunner(generator, generator.engines())(request_of(20), tmp_path, silent)
    assert reason is Exit.ENVIRONMENT and len(asked) == 4  # two windows, two branches: the step and no more
    assert line["error"].startswith("step 1 of 3 gave numbers that are not finite: a precision that")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_condition_that_is_not_finite_is_found_before_the_first_step(plain, request_of, tmp_path, value):
    generator = plain()
    engines = generator.engines()
    spoilt = {"encode": lambda pixels: {"latents": engines["encode"](pixels)["latents"] * np.float32(value)}}
    line, reason = VideoRunner(generator, {**engines, **spoilt})(request_of(2), tmp_path, silent)
    assert reason is Exit.ENVIRONMENT and generator.calls == []
    assert line["error"].startswith("pose, which the denoiser needs, is not finite")


# Limits


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_longer_than_the_limit_is_refused_before_its_frames_are_read(tmp_path, name):
    path = make(tmp_path / name, seconds=40, source="color=red:")
    assert probe(path, max_frames=960).frames == 960
    with pytest.raises(InputError, match="has more than 959 frames, the limit. Cut it into parts."):
        VideoReader(path, max_frames=959)


def test_a_header_that_names_too_few_frames_does_not_help(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mp4")
    monkeypatch.setattr("pipeline.video.info.frames_in_header", lambda path: 3)
    with pytest.raises(InputError, match="more than 23 frames"):
        VideoReader(path, max_frames=23)
    reader = VideoReader(path, max_frames=24)
    reader._max_frames = 23  # as if packets held more than a frame each
    with pytest.raises(InputError, match="more than 23 frames"):
        list(reader)


def test_limits_reach_the_video_and_the_picture(plain, request_of, tmp_path):
    generator, request = plain(), request_of(9)
    for limits, words in ((Limits(frames=8), "a.mp4: has more than 8 frames"),
                          (Limits(pixels=64 * 96 - 1), "a.png: is too large .*limit is 6143")):
        maker = VideoRunner(generator, generator.engines(), Options(limits=limits))
        line, reason = maker(request, tmp_path, silent)
        assert reason is Exit.INPUT and re.search(words, line["error"])
    assert VideoRunner(generator, generator.engines(), Options(limits=Limits(9, 64 * 96)))(
        request, tmp_path, silent)[1] is Exit.OK


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_small_file_of_a_giant_picture_takes_no_memory(tmp_path):
    """30000 x 30000 pixels, of which the first million bytes are there: 2.7 GB as RGB."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b"")
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    program = """
import sys, warnings
warnings.simplefilter("ignore")
from engines.errors import InputError
from engines.progress import peak_memory_mb
from pipeline.video.image import read_image
before = peak_memory_mb()
try:
    read_image(sys.argv[1])
except InputError as error:
    print(peak_memory_mb() - before < 100, error)
"""
    answer = subprocess.run([sys.executable, "-c", program, bomb], capture_output=True, text=True)
    assert re.match(r"True .*is too large", answer.stdout), answer.stdout + answer.stderr
