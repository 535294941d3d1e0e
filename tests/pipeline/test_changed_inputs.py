"""A manifest's hashes are of what was read, whatever happens to the files while the video is made."""

import pytest

from engines.errors import Exit, InputError, OutputError
from engines.hashes import file_sha256
from pipeline.batch.dataset import find_requests
from pipeline.request import Options
from pipeline.runner import VideoRunner
from pipeline.source import Inputs, Limits
from pipeline.streamed_request import sampling_of
from tests.pipeline.test_source import ahead, read


@pytest.fixture
def meanwhile(plain):
    """A function that makes a runner of the NumPy generator; a stage of it first does something else too."""
    def make(stage, act, sampling=None):
        generator = plain()
        own = getattr(generator, stage)

        def acting(*given):
            act()
            return own(*given)
        setattr(generator, stage, acting)
        return VideoRunner(generator, generator.engines(), Options(sampling=sampling))
    return make


def test_a_picture_saved_again_while_the_video_is_made_is_not_what_it_was_made_of(
        run, make_data, make_image_file, meanwhile):
    data = make_data({"a": 2})
    picture, before = data / "images" / "a.png", file_sha256(data / "images" / "a.png")
    jobs, _, _ = run(data, meanwhile("denoise", lambda: make_image_file(picture, (96, 64))))
    assert jobs.lines[0]["image_sha256"] == before != file_sha256(picture)
    with pytest.raises(OutputError, match="a: image_sha256 was .* when it was made, is .* here"):
        run(data)


def test_a_picture_that_goes_away_once_it_was_read_does_not_fail_the_video(run, make_data, meanwhile):
    data = make_data({"a": 2})
    picture, before = data / "images" / "a.png", file_sha256(data / "images" / "a.png")
    jobs, _, _ = run(data, meanwhile("denoise", lambda: picture.unlink(missing_ok=True)))
    assert jobs.lines[0]["status"] == "done" and jobs.lines[0]["image_sha256"] == before


@pytest.mark.parametrize("sampling", [None, sampling_of], ids=["batch", "stream"])
def test_a_file_that_changes_while_it_is_read_fails_the_video_and_the_next_run_makes_it(
        run, make_data, make_image_file, tmp_path, meanwhile, sampling):
    data = make_data({"a": 2})
    picture = data / "images" / "a.png"
    changing = meanwhile("condition", lambda: make_image_file(picture, (96, 64)), sampling)
    jobs, _, _ = run(data, changing)
    assert jobs.status is Exit.INPUT and jobs.lines[0]["error"] == (
        f"{picture}: has changed while it was read; let nothing write to it, and run again")
    assert not (tmp_path / "out" / "a.mp4").exists()
    assert run(data)[0].lines[0]["image_sha256"] == file_sha256(picture)


def test_what_changes_after_it_was_read_ahead_is_read_again(plain, make_data, make_video_file):
    request = find_requests(make_data({"a": 3})).requests[0]
    inputs = Inputs(plain(), Limits())
    ahead(inputs, request)
    make_video_file(request.video, 5)
    frames, source = read(inputs, request)
    assert len(frames) == 5 and source.hashes["video_sha256"] == file_sha256(request.video)
    ahead(inputs, request)
    request.video.unlink()
    with pytest.raises(InputError, match="a.mp4: no such file"):
        inputs.open(request)
