"""Clips sampled piece by piece: the same numbers as at once, early, and without holding the clip."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from generators.wan.unianimate import PrivateStarts
from generators.windows import OverlapWindows, ReferenceWindows
from pipeline.frame_buffer import FrameBuffer
from pipeline.guard import Guard
from pipeline.sampler import Sampler, evaluations
from pipeline.step_plan import StepPlan
from pipeline.streaming import StreamedClip
from tests.streamed_clips import (
    NEVER,
    Around,
    at_once,
    constants_of,
    in_pieces,
    mixing,
    random_case,
    streamed,
)


@pytest.mark.parametrize("seed", range(40))
def test_any_rule_and_plan_give_the_bytes_of_the_whole_clip_with_as_many_evaluations(plain, seed):
    rule, plan, scheduler, frames, random = random_case(seed)
    generator = mixing(plain(guidance=float(random.choice([1.0, 2.0]))))
    generator.windows, generator.scheduler = rule, scheduler
    constants, ticks = constants_of(frames), []
    whole = at_once(generator, plan, constants, frames).latents
    asked = len(generator.calls)
    found, clip = streamed(generator, plan, constants, frames, int(random.integers(1, 20)),
                           tick=lambda: ticks.append(1))
    assert found.tobytes() == whole.tobytes() and found.shape == whole.shape
    assert len(generator.calls) == 2 * asked and len(ticks) == evaluations(generator, frames, plan)
    assert clip.taken == plan.actions and clip.unlike is None


@pytest.mark.parametrize("rule", [Around(), ReferenceWindows(6, 3), ReferenceWindows(6, 3, even=True)])
def test_rules_that_tie_all_windows_together_give_the_same_bytes(plain, rule):
    generator = mixing(plain(steps=4))
    generator.windows = rule
    frames = 26
    constants = constants_of(rule.latent_frames(frames))
    whole = at_once(generator, None, constants, frames).latents
    assert streamed(generator, None, constants, frames)[0].tobytes() == whole.tobytes()


def test_first_frames_take_a_triangle_of_windows_and_later_ones_a_row_whatever_the_clips_length(plain):
    generator, taken = mixing(plain(steps=5)), []
    generator.windows = OverlapWindows(8, 2)
    engines = {"denoise": generator.engines()["denoise"]}
    counts = []
    for frames in (80, 800):
        ticks = []
        sampler = Sampler(generator, engines, tick=lambda: ticks.append(1))  # noqa: B023
        clip = StreamedClip(sampler, in_pieces(constants_of(frames), 6, taken), frames, 7)
        latents = clip.latents()
        after = []
        for _ in range(6):
            next(latents)
            after.append(len(ticks))
        counts.append(after)
    assert counts[0] == counts[1] and counts[0][0] == 5 * 6 / 2
    assert {b - a for a, b in pairwise(counts[0])} == {5}
    assert max(taken) < 80  # nothing was read beyond


@pytest.mark.parametrize(("guarded", "more"), [(False, 50_000), (True, 120_000)])  # a guard's own: 48 a frame
def test_what_is_held_does_not_grow_with_the_clip(plain, guarded, more):
    generator, peaks = mixing(plain(steps=3)), []
    generator.noise_pieces = lambda frames, seed: (
        np.zeros((1, min(50, frames - n), 12, 8), np.float32) for n in range(0, frames, 50)
    )
    generator.denoise = lambda engine, latents, step, constants, conditional: latents * 0.5
    guard = Guard(5, (0.0, NEVER, NEVER), ("pose",), ((0.0,) * 12,), ((1.0,) * 12,), (1.0,))
    for frames in (700, 1700):
        def pieces():
            odd = lambda at: 9 if at == 200 or at > 300 and at % 40 else 1  # noqa: E731
            yield {"pose": np.ones((1, 10, 12, 8), np.float32), "reference": np.ones((1, 2), np.float32)}
            for number in range(1, frames // 10):  # noqa: B023
                yield {"pose": np.full((1, 10, 12, 8), odd(10 * number), np.float32)}

        plan = StepPlan("FFF", guard=guard if guarded else None)
        clip = StreamedClip(Sampler(generator, {"denoise": None}, plan), pieces(), frames, 7)
        tracemalloc.start()
        kept = [peak for _ in clip.latents() for peak in tracemalloc.get_traced_memory()[:1]]
        tracemalloc.stop()
        peaks.append(max(kept[5:]) - kept[5])
        assert bool(clip.unlike) == guarded
    assert peaks[1] < peaks[0] + more  # 1,000 frames' poses and noise are 770,000


@pytest.mark.parametrize("guarded", [False, True])
def test_conditions_of_windows_that_have_their_own_are_dropped_too(plain, guarded):
    generator, most = mixing(plain(steps=3)), []
    generator.windows = PrivateStarts(8, 3)
    guard = Guard(5, (0.0, NEVER, NEVER), ("pose",), ((0.0,) * 12,), ((1.0,) * 12,), (1.0,))
    engines = {"denoise": generator.engines()["denoise"]}
    for frames in (120, 360):
        sampler = Sampler(generator, engines, StepPlan("FFF", guard=guard if guarded else None))
        constants = constants_of(generator.windows.conditions(frames))
        clip, held = StreamedClip(sampler, in_pieces(constants, 8), frames, 7), []
        for _ in clip.latents():
            pose = clip._conditions["pose"]
            held.append(pose.end - pose._begin)
        most.append(max(held))
    assert most[0] == most[1] <= 80


def test_a_buffer_holds_what_is_kept_and_takes_frames_from_any_of_its_pieces():
    def frames(start, count):
        return np.full((1, count, 1000), np.arange(start, start + count)[:, None], np.float32)

    count = iter(range(6, 10_000, 6))
    buffer = FrameBuffer(frames(0, 6), 600, 1, lambda: buffer.append(frames(next(count), 6)))
    tracemalloc.start()
    for begin in range(0, 590, 5):
        wanted = np.array([begin + 9, begin, begin + 1])
        assert buffer.take(wanted, 1)[0, :, 7].tolist() == wanted.tolist()
        buffer.forget(begin - 90)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 125 * 4_000  # 90 frames are kept, and pieces have 6
    with pytest.raises(IndexError, match="forgotten"):
        buffer.take(np.array([400]), 1)
