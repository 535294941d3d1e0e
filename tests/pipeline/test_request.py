"""One request from files to a video: frames, rate, size, hashes, and memory that does not grow."""

import hashlib
import tracemalloc
from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.batch.dataset import Request
from pipeline.output_form import SkeletonChunks
from pipeline.request import Options, make_video
from pipeline.sampler import Sampler, evaluations
from pipeline.stopwatch import Seconds
from pipeline.video.reader import InputError, OutputError, VideoReader, read, read_image

NTSC = Fraction(30000, 1001)
CLIPS = [(1, 24, (128, 192)), (7, 25, (270, 480)), (16, NTSC, (640, 360)), (17, 24, (541, 961)),
         (40, NTSC, (128, 192)), (40, 25, (541, 961)), (1, NTSC, (541, 961)), (16, 25, (128, 192))]


@pytest.fixture
def request_of(tmp_path, make_video_file, make_image_file):
    """A function that makes the files of a request."""
    def make(frames=3, size=(64, 96), fps=24, seed=1):
        video = make_video_file(tmp_path / "in" / "a.mp4", frames, size, fps)
        return Request("a", video, make_image_file(tmp_path / "in" / "a.png"), seed)
    return make


def silent(total):
    return nullcontext(SimpleNamespace(tick=lambda: None))


def make(request, output, generator, engines=None):
    return make_video(request, output, generator, engines or generator.engines(), silent)


@pytest.mark.parametrize(("frames", "fps", "size"), CLIPS, ids=str)
def test_the_video_has_the_clips_frames_and_rate_and_the_generators_size(
        tiny, tiny_engines, request_of, tmp_path, frames, fps, size):
    made = make(request_of(frames, size, fps), tmp_path / "a.mp4", tiny, tiny_engines)
    clip = read(tmp_path / "a.mp4")
    assert clip.frames.shape == (frames, 48, 32, 3) and clip.fps == fps
    assert made["frames"] == frames and Fraction(made["fps"]) == fps and made["size"] == [32, 48]


def test_the_video_shows_what_the_generator_decoded_and_the_hash_is_of_those_frames(
        plain, request_of, tmp_path):
    generator, request = plain(), request_of(20)
    made = make(request, tmp_path / "a.mp4", generator)
    image = generator.fit(read_image(request.image)[None])
    engines = generator.engines()
    with VideoReader(request.video) as reader:
        constants = generator.condition(engines, SkeletonChunks(reader, generator), image)
    latents = Sampler(generator, engines).sample(constants, 20, request.seed).latents
    frames = np.concatenate(list(generator.decode(engines, latents)))
    assert made["frames_sha256"] == hashlib.sha256(frames.tobytes()).hexdigest()
    shown = read(tmp_path / "a.mp4").frames
    error = np.mean((shown.astype(float) - frames) ** 2)
    assert 10 * np.log10(255**2 / error) > 38  # only the codec between them


def test_a_lossless_file_shows_exactly_the_frames_that_were_made(tiny, tiny_engines, request_of, tmp_path):
    made = make_video(request_of(3), tmp_path / "a.mp4", tiny, tiny_engines, silent, Options(lossless=True))
    shown = read(tmp_path / "a.mp4").frames
    assert hashlib.sha256(shown.tobytes()).hexdigest() == made["frames_sha256"]


def test_hashes_are_of_the_files(tiny, tiny_engines, request_of, tmp_path):
    request = request_of()
    made = make(request, tmp_path / "a.mp4", tiny, tiny_engines)
    for key, path in (("output_sha256", tmp_path / "a.mp4"), ("video_sha256", request.video),
                      ("image_sha256", request.image)):
        assert made[key] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_request_gives_equal_files_and_another_seed_does_not(
        tiny, tiny_engines, request_of, tmp_path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        make(request_of(18, seed=seed), tmp_path / f"{name}.mp4", tiny, tiny_engines)
    first, again, other = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("first", "again", "other"))
    assert first == again and first != other


def test_seconds_of_the_stages_add_up(tiny, tiny_engines, request_of, tmp_path):
    made = make(request_of(18), tmp_path / "a.mp4", tiny, tiny_engines)
    assert set(made["seconds"]) == {"read", "condition", "denoise", "decode", "write"}
    assert all(seconds >= 0 for seconds in made["seconds"].values())
    between = made["total_seconds"] - sum(made["seconds"].values())
    assert -0.01 < between < 1.0  # starting the encoder and hashing the files lie outside the stages


def test_progress_is_told_the_number_of_evaluations_and_ticks_as_often(plain, request_of, tmp_path):
    generator, totals, ticks = plain(), [], []

    def start(total):
        totals.append(total)
        return nullcontext(SimpleNamespace(tick=lambda: ticks.append(1)))

    make_video(request_of(30), tmp_path / "a.mp4", generator, generator.engines(), start)
    assert totals == [evaluations(generator, 30)] == [len(ticks)] == [9]


def test_notes_on_the_inputs_are_kept(plain, request_of, tmp_path):
    request = request_of()
    Image.new("RGBA", (64, 96), (255, 0, 0, 90)).save(request.image)
    made = make(request, tmp_path / "a.mp4", plain())
    assert made["notes"][0] == f"{request.image}: is transparent in places; these were made white"
    assert made["notes"][1].startswith("the skeleton video does not look like")  # fit() leaves means of it


def test_a_truncated_video_is_an_input_error_and_leaves_nothing(plain, request_of, tmp_path):
    request = request_of(30)
    request.video.write_bytes(request.video.read_bytes()[:-700])
    with pytest.raises(InputError, match="a.mp4"):
        make(request, tmp_path / "a.mp4", plain())
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_generator_that_fails_midway_leaves_no_file(plain, request_of, tmp_path):
    generator = plain()
    whole = generator.decode

    def half(engines, latents):
        yield next(whole(engines, latents))
        raise MemoryError("no more")

    generator.decode = half
    with pytest.raises(MemoryError, match="no more"):
        make(request_of(20), tmp_path / "a.mp4", generator)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_output_that_cannot_be_written_is_an_output_error(plain, request_of, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        make(request_of(), tmp_path / "nowhere" / "a.mp4", plain())


def test_skeleton_chunks_have_the_generators_size_and_count_their_frames(tiny, request_of):
    with VideoReader(request_of(17, (270, 480)).video) as reader:
        chunks = SkeletonChunks(reader, tiny)
        shapes = [chunk.shape for chunk in chunks]
    assert shapes == [(8, 48, 32, 3), (8, 48, 32, 3), (1, 48, 32, 3)]
    assert chunks.frames == 17 and chunks.waited > 0


def test_memory_grows_with_a_clip_by_its_latents_only(plain, request_of, tmp_path):
    """A frame is 64 x 96 x 3 bytes, its latents are 384: a few copies of those are far below a frame."""
    peaks = {}
    for frames in (50, 50, 400):  # the first warms up what is imported and cached
        request, generator = request_of(frames), plain(steps=2)
        generator.denoise = lambda engine, latents, *rest: latents  # keeps no record of its calls
        tracemalloc.start()
        make(request, tmp_path / "a.mp4", generator)
        peaks[frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    growth = (peaks[400] - peaks[50]) / 350
    assert growth < 0.3 * 64 * 96 * 3


def test_a_stage_entered_twice_adds_up_and_seconds_can_move():
    seconds = Seconds()
    for _ in range(2):
        with seconds("read"):
            pass
    assert list(seconds.stages) == ["read"] and seconds.stages["read"] > 0
    seconds.stages["read"] = 5.0
    seconds.move(2.0, "read", "write")
    assert seconds.stages == {"read": 3.0, "write": 2.0}
