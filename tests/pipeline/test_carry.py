"""Windows that follow on one another: what each is given, and that the clip comes out whole, once."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from generators.windows import ContinuationWindows
from optimize.steps.tuning_runner import TuningRunner
from pipeline.batch.dataset import Request
from pipeline.recipe import Recipe, RecipeError
from pipeline.request import make_video
from pipeline.sampler import Sampler, evaluations, generate
from pipeline.step_plan import StepPlan

FRAMES = [1, 8, 9, 10, 15, 16, 40]


@pytest.fixture
def carrying(plain):
    """A generator whose windows of 9 frames keep 2; a frame shows the number that it has in the clip."""

    class Carrying(plain):
        per_frame = frozenset()
        windows = ContinuationWindows(9, 2)

        def __init__(self, **options):
            super().__init__(**options)
            self.tails, self.noises = [], []
            self.flow = lambda conditional, latents, pose: latents - pose  # the pose is what comes out

        def condition(self, engines, chunks, image):
            return {"frames": np.float32(sum(len(chunk) for chunk in chunks))}

        def carry(self, engines, constants, window, tail):
            self.tails.append(tail)
            begin = 0 if tail is None else int(tail[0, 0, 0, 0])
            levels = (np.arange(begin, begin + 9, dtype=np.float32) / 127.5 - 1)[None, :, None, None]
            return {"pose": np.broadcast_to(levels, (1, 9, 12, 8))}

        def noise(self, frames, seed):
            self.noises.append(frames)
            return super().noise(frames, seed) * 0

        def denoise(self, engine, latents, step, constants, conditional):
            flow = (latents - constants["pose"]) / self.scheduler.times[step]
            self.calls.append(step)
            return flow

        def _decode(self, latents):
            pixels = ((latents[0] + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
            return {"pixels": pixels.repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3)}

    return Carrying


def silent(total):
    return nullcontext(SimpleNamespace(tick=lambda: None))


def skeletons(frames):
    return np.zeros((frames, 96, 64, 3), np.uint8)


@pytest.mark.parametrize("frames", FRAMES)
def test_every_frame_is_shown_once_and_a_window_goes_on_where_the_one_before_ended(carrying, frames):
    generator = carrying(guidance=1.0)
    shown = generate(generator, generator.engines(), skeletons(frames), skeletons(1)[0], 1)
    assert shown[:, 0, 0, 0].tolist() == list(range(frames))
    count = generator.windows.count(frames)
    assert [None if tail is None else len(tail) for tail in generator.tails] == [None] + [2] * (count - 1)
    assert generator.noises == [9 * count]
    assert generator.calls == [0, 1, 2] * count  # windows outside, steps inside
    assert evaluations(generator, frames) == len(generator.calls)


def test_each_window_has_a_walk_of_its_own_and_a_plan_applies_to_each(carrying):
    generator, plan = carrying(guidance=1.0), StepPlan("FSF")
    constants = generator.condition(None, [skeletons(20)], None)
    made = []
    for segment in Sampler(generator, generator.engines(), plan).segments(constants, 20, 1):
        made.append((segment.state.taken, sum(len(chunk) for chunk in segment.pixels)))
    assert made == [("FSF", 9), ("FSF", 7), ("FSF", 4)]


def test_the_manifest_tells_the_windows_apart(carrying, make_video_file, make_image_file, tmp_path):
    video, image = make_video_file(tmp_path / "in.mp4", 20), make_image_file(tmp_path / "in.png")
    generator, request = carrying(), Request("a", video, image, 1)
    line = make_video(request, tmp_path / "a.mp4", generator, generator.engines(), silent)
    assert line["frames"] == 20 and line["actions"] == "FFF FFF FFF" and line["guard_fired"] == []


def test_an_overlap_and_tuning_are_refused_with_the_reason(carrying, tmp_path):
    with pytest.raises(RecipeError, match="overlap: the windows of this generator follow on one another"):
        Recipe("x", overlap=3).adapt(carrying())
    with pytest.raises(ValueError, match="plain: windows that follow on one another cannot be tuned yet"):
        TuningRunner([], carrying(), "cpu", tmp_path, None)
