"""A video has all frames of its clip, or is not made: runs and the check tell of what drops some."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from generators.contract import GeneratorError
from generators.windows import ContinuationWindows
from pipeline.batch.dataset import Request
from pipeline.length_check import check_lengths
from pipeline.request import Options, make_video
from pipeline.sampler import generate
from pipeline.streamed_request import sampling_of

DECODES = r"decode gives 16 frames of 21; let it yield the pixels of all latents"
SHORT = r"condition: pose is \(1, 16, 12, 8\) of a clip of 21 frames, expected 21 along axis 1; let it encode"
SKELETONS = np.repeat(np.arange(21, dtype=np.uint8) * 10, 96 * 64 * 3).reshape(21, 96, 64, 3)


def silent(total):
    return nullcontext(SimpleNamespace(tick=lambda: None, grow=lambda count: None))


@pytest.fixture
def made(make_video_file, make_image_file, tmp_path):
    """A function that makes the video of a clip of 21 frames, and returns its manifest's fields."""
    def make(generator, sampling=None):
        video, image = make_video_file(tmp_path / "in.mp4", 21), make_image_file(tmp_path / "in.png")
        request = Request("a", video, image, 1)
        given = generator, generator.engines(), silent, Options(sampling=sampling)
        return make_video(request, tmp_path / "out" / "a.mp4", *given)
    (tmp_path / "out").mkdir()
    yield make
    assert [*(tmp_path / "out").iterdir()] == []


def whole_chunks(plain):
    """A generator that decodes whole chunks alone: right for its window of 16 frames, wrong for 21."""
    class Whole(plain):
        def decode(self, engines, latents):
            for start in range(0, latents.shape[1] - self.chunk + 1, self.chunk):
                yield engines["decode"](latents=latents[:, start:start + self.chunk])["pixels"]

        def decode_pieces(self, engines, pieces):
            yield from self.decode(engines, np.concatenate([*pieces], 1))

        def condition_pieces(self, engines, chunks, image):
            yield self.condition(engines, chunks, image)
    return Whole()


def lost_poses(plain):
    """A generator that encodes whole chunks alone."""
    class Lost(plain):
        def condition(self, engines, chunks, image):
            return super().condition(engines, (each for each in chunks if len(each) == self.chunk), image)

        def condition_pieces(self, engines, chunks, image):
            yield self.condition(engines, chunks, image)

        def decode_pieces(self, engines, pieces):
            for latents in pieces:
                yield from self.decode(engines, latents)
    return Lost()


@pytest.mark.parametrize("sampling", [None, sampling_of], ids=["batch", "stream"])
def test_a_video_with_fewer_frames_than_its_clip_is_not_made(made, plain, sampling):
    with pytest.raises(GeneratorError, match=DECODES):
        made(whole_chunks(plain), sampling)


def test_nor_is_a_clip_in_memory_made_shorter(plain):
    generator = whole_chunks(plain)
    with pytest.raises(GeneratorError, match=DECODES):
        generate(generator, generator.engines(), SKELETONS, SKELETONS[0], 1)


def test_the_last_poses_are_not_repeated_for_those_that_condition_leaves_out(made, plain):
    with pytest.raises(GeneratorError, match=SHORT):
        made(lost_poses(plain))


def test_nor_is_the_video_blamed_when_it_is_streamed(made, plain):
    with pytest.raises(GeneratorError, match="condition_pieces: the conditions end before the clip of 21"):
        made(lost_poses(plain), sampling_of)


@pytest.mark.parametrize(("more", "text"), [(3, None), (-1, "decode gives 8 frames of 9")])
def test_a_window_that_others_continue_gives_its_own_frames(plain, more, text):
    """Frames beyond a window's own are cut off, as those beyond a clip are, and do not move the next ones."""
    class Carrying(plain):
        windows, per_frame = ContinuationWindows(9, 2), frozenset()

        def condition(self, engines, chunks, image):
            return {}

        def carry(self, engines, constants, window, tail):
            begin = 0 if tail is None else int(tail[0, 0, 0, 0])
            return {"begin": np.array(begin)}

        def denoise(self, engine, latents, step, constants, conditional):
            self.begin = int(constants["begin"])
            return latents * 0

        def decode(self, engines, latents):
            levels = np.arange(self.begin, self.begin + 9 + more, dtype=np.uint8)
            yield np.broadcast_to(levels[:, None, None, None], (len(levels), 96, 64, 3))

    generator = Carrying()
    if text:
        with pytest.raises(GeneratorError, match=text):
            generate(generator, {"denoise": None}, SKELETONS, SKELETONS[0], 1)
    else:
        shown = generate(generator, {"denoise": None}, SKELETONS, SKELETONS[0], 1)
        assert shown[:, 0, 0, 0].tolist() == list(range(21))


def test_the_check_tries_a_clip_with_a_chunk_that_is_not_full(plain):
    found = {}
    for generator in (plain(), whole_chunks(plain), lost_poses(plain)):
        found[type(generator).__name__] = [*map(str, check_lengths(generator, generator.engines()))]
    assert found == {
        "Plain": [],
        "Whole": ["decode: it gives 16 frames of a clip of 17\n"
                  "  mend: yield the pixels of all latents, of a last chunk not full too"],
        "Lost": ["condition: pose is (1, 16, 12, 8) of a clip of 17 frames, expected 17 along axis 1\n"
                 "  mend: encode all chunks, a last one not full too"]}
