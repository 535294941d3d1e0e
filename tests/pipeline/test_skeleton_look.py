"""The plausibility check of skeleton videos: real and rendered ones pass, everything else gets a note."""

from pathlib import Path

import numpy as np
import pytest

from generators.resize import cover
from lab.presenter.render.clip import Clip
from pipeline.batch.dataset import Request
from pipeline.request import Source
from pipeline.video.reader import read
from pipeline.video.skeleton_check import SkeletonCheck

REAL = Path(__file__).parents[3] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="real files are not here")


def note(frames):
    look = SkeletonCheck()
    assert sum(len(chunk) for chunk in look.watch(np.array_split(frames, 2))) == len(frames)
    return look.note


@pytest.fixture(scope="module")
def skeletons():
    """Four frames of a rendered skeleton video."""
    clip = Clip(12)
    return clip.skeletons(clip.times(4))


@pytest.mark.parametrize("name", ["moore-2", "videox-fun", "wan22-landscape-50fps-mpeg4"])
@needs_real
def test_real_skeletons_get_no_note_at_any_size(name):
    frames = read(REAL / "skeletons" / f"{name}.mp4").frames[:2]
    assert note(frames) is None
    assert note(np.concatenate([cover(frame[None], 128, 192) for frame in frames])) is None


@pytest.mark.parametrize(("name", "reason"), [
    ("skeletons/densepose-not-a-skeleton.mp4", "only 0% of it is black"),
    ("footage/bikes.mp4", "% of it is black"),
])
@needs_real
def test_real_videos_of_other_things_get_one(name, reason):
    assert reason in note(read(REAL / name).frames[:2])


def test_rendered_skeletons_get_no_note_and_changed_ones_do(skeletons):
    lit = skeletons.max(-1, keepdims=True) > 24
    white = np.where(lit, 255, 0).astype(np.uint8).repeat(3, -1)
    assert note(skeletons) is None
    assert "only 1% of it is black" in note(np.where(lit, skeletons, 255).astype(np.uint8))
    assert "only 0% of what is drawn has a colour" in note(white)
    assert "nothing is drawn" in note(np.zeros_like(skeletons))
    body = np.zeros_like(skeletons)
    body[:, 60:150, 40:80] = (255, 0, 0)
    assert "are filled areas, not thin limbs" in note(body)


def test_frames_without_a_person_between_others_are_no_reason(skeletons):
    assert note(np.concatenate([np.zeros_like(skeletons), skeletons])) is None


def test_the_note_is_told_with_those_of_the_files(tiny, make_video_file, make_image_file, tmp_path):
    video = make_video_file(tmp_path / "a.mp4", 3, (32, 48))
    with Source(Request("a", video, make_image_file(tmp_path / "a.png"), 1), tiny) as source:
        assert sum(len(chunk) for chunk in source) == 3
        assert any("does not look like key points drawn on black" in text for text in source.notes)
