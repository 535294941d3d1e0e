"""The bundled sample data and base demos: made by the repository's own commands, and free of window seams."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bench.frame_metrics import psnr
from generators.presenter.generator import Presenter
from lab.presenter.evaluate import held_out
from lab.presenter.render.clip import Clip
from lab.presenter.sample_data import SAMPLES, held_out_samples, write_sample_data
from pipeline.video.image import read_image
from pipeline.video.reader import read

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data" / "sample"


def test_every_sample_has_a_video_an_image_and_a_base_demo_and_nothing_else_is_there():
    for part, suffix in (("videos", ".mp4"), ("images", ".png"), ("outputs", ".mp4")):
        assert {path.name for path in (DATA / part).glob("*")} == {name + suffix for name in SAMPLES}


def test_held_out_samples_are_the_people_and_motions_of_the_evaluation(tmp_path):
    written = {}
    keep = lambda path, frames: written.update({path.stem: frames})  # noqa: E731
    write_sample_data(tmp_path, keep, held_out_samples(2, 3))
    assert list(written) == ["held-out-00", "held-out-01"]
    item = held_out(1, 3)
    assert np.array_equal(written["held-out-01"], item.skeletons)
    assert np.array_equal(read_image(tmp_path / "images" / "held-out-01.png"), item.reference)
    assert held_out_samples(1, 3, first=7) == {"held-out-07": held_out_samples(8, 3)["held-out-07"]}


def test_the_sample_data_is_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 5e6


@pytest.mark.parametrize("name", SAMPLES)
def test_images_and_skeletons_are_what_the_renderer_draws(name):
    seed, frames = SAMPLES[name]
    clip = Clip(seed)
    assert np.array_equal(read_image(DATA / "images" / f"{name}.png"), clip.reference())
    stored = read(DATA / "videos" / f"{name}.mp4").frames
    drawn = clip.skeletons(clip.times(frames))
    assert stored.shape == drawn.shape
    assert psnr(stored.astype(np.float32) - drawn) > 28  # thin coloured lines in 4:2:0 chroma


@cache
def drawn(name):
    """A sample's true frames, float32, and where they are determined; drawn once for all tests."""
    seed, frames = SAMPLES[name]
    clip = Clip(seed)
    t = clip.times(frames)
    return clip.frames(t).astype(np.float32), clip.determined(t)


def share_closer_to(right, wrong, made, where):
    """Of the pixels there in which two truths clearly differ, how many were made more like the right one."""
    different = (np.abs(right - wrong).max(-1) > 40) & where
    return (np.abs(made - right).sum(-1) < np.abs(made - wrong).sum(-1))[different].mean()


@pytest.mark.parametrize("name", SAMPLES)
def test_base_demos_show_the_right_person_in_the_right_pose(name):
    seed, frames = SAMPLES[name]
    truth, determined = drawn(name)
    other = Clip(seed, identity_seed=seed + 1)
    another = other.frames(other.times(frames)).astype(np.float32)
    made = read(DATA / "outputs" / f"{name}.mp4").frames.astype(np.float32)
    assert share_closer_to(truth, another, made, determined) > 0.93
    late = 8  # a third of a second
    assert share_closer_to(truth[late:], truth[:-late], made[late:], determined[late:]) > 0.7
    assert psnr(made - truth, determined) > 21


def test_window_seams_are_as_true_to_the_motion_as_the_rest():
    """Error of the change from frame to frame, where a window begins or ends and elsewhere: within 1 dB."""
    seams, rest = [], []
    for name, (_, frames) in SAMPLES.items():
        truth, determined = drawn(name)
        made = read(DATA / "outputs" / f"{name}.mp4").frames.astype(np.float32)
        error = np.diff(made - truth, axis=0)
        both = determined[1:] & determined[:-1]
        starts = Presenter.windows.starts(frames)
        borders = {s - 1 for s in starts[1:]} | {s + Presenter.windows.length - 1 for s in starts[:-1]}
        for i in range(frames - 1):
            (seams if i in borders else rest).append(np.square(error[i][both[i]]).mean())
    difference = 10 * np.log10(np.mean(seams) / np.mean(rest))
    assert len(seams) > 10
    assert difference < 1.0
