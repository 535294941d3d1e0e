"""Clips sampled piece by piece: the same numbers as at once, early, and without holding the clip."""

import tracemalloc
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from generators.samplers import FlowMatchEuler, UniPcMultistep
from generators.uniform_windows import MovingWindows, UniformWindows
from generators.wan.unianimate import PrivateStarts
from generators.windows import OverlapWindows, ReferenceWindows
from pipeline.frame_buffer import FrameBuffer
from pipeline.guard import Guard
from pipeline.sampler import Sampler, evaluations
from pipeline.step_plan import StepPlan
from pipeline.streaming import StreamedClip

NEVER = 100.0


def poses(frames, seed=0):
    """Poses that are noise, so that any frame that lands elsewhere is seen."""
    random = np.random.default_rng(seed)
    return random.standard_normal((1, frames, 12, 8), np.float32)


def mixing(generator):
    """Let a window's flow hang on all its frames, the pose, and the branch."""
    def flow(conditional, latents, pose):
        mean = latents.mean(1, keepdims=True)
        return np.tanh(latents - pose * conditional + 0.3 * mean * latents.shape[1] ** 0.5)

    generator.flow = flow
    return generator


def in_pieces(constants, length, taken=None):
    first = {"reference": constants["reference"]}
    for start in range(0, constants["pose"].shape[1], length):
        if taken is not None:
            taken.append(start)
        yield {"pose": constants["pose"][:, start : start + length], **first}
        first = {}


def at_once(generator, plan, constants, frames, **options):
    engines = {"denoise": generator.engines()["denoise"]}
    return Sampler(generator, engines, plan, **options).sample(constants, frames, 7)


def streamed(generator, plan, constants, frames, length=8, **options):
    engines = {"denoise": generator.engines()["denoise"]}
    clip = StreamedClip(Sampler(generator, engines, plan, **options), in_pieces(constants, length), frames, 7)
    return np.concatenate([*clip.latents()], 1), clip


def constants_of(frames, seed=0):
    return {"pose": poses(frames, seed), "reference": np.ones((1, 2, 12, 8), np.float32)}


def random_case(seed):
    random = np.random.default_rng(seed)
    length = int(random.integers(2, 17))
    rule = OverlapWindows(length, int(random.integers(0, length)))
    steps = int(random.integers(1, 9))
    actions = "F" + "".join(random.choice(list("FCS"), steps - 1))
    count = sum(letter != "S" for letter in actions)
    overlaps = tuple(int(n) for n in random.integers(0, length, random.integers(0, count + 1)))
    scheduler = (FlowMatchEuler, UniPcMultistep)[seed % 2](steps, 2.0)
    return rule, StepPlan(actions, overlaps=overlaps), scheduler, int(random.integers(1, 120)), random


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


@dataclass(frozen=True)
class Around:
    """A rule whose windows go around the end of the clip, as AnimateAnyone's do: every frame hangs on all."""

    length: int = 4
    frames = property(lambda self: self.length)

    def latent_frames(self, frames):
        return frames

    def condition_indices(self, frames):
        return np.arange(frames)

    def window_indices(self, frames):
        return [np.arange(start, start + self.length) % frames for start in range(0, frames, self.length - 1)]

    def count(self, frames):
        return len(self.window_indices(frames))

    def weights(self, length):
        return np.ones(length, np.float32)


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


def unlike_at(frames, plan, *runs):
    """A plan whose guard takes these runs of poses for unlike, and constants of such a clip."""
    changes = (0.0,) + (NEVER,) * (len(plan.evaluated) - 1)
    guard = Guard(5, changes, ("pose",), ((0.0,) * 12,), ((1.0,) * 12,), (1.0,))
    constants = constants_of(frames)
    for begin, end in runs:
        constants["pose"][:, begin:end] *= 100
    return StepPlan(plan.actions, overlaps=plan.overlaps, guard=guard), constants


def both_ways(generator, plan, constants, frames, length=8):
    """The latents of a clip made at once, which streamed ones must be, and the state."""
    ticks, more = [], []
    whole = at_once(generator, plan, constants, frames)
    found, clip = streamed(generator, plan, constants, frames, length, tick=lambda: ticks.append(1),
                           more=more.append)
    assert found.tobytes() == whole.latents.tobytes() and found.shape == whole.latents.shape
    assert clip.unlike == whole.unlike and clip.taken == whole.taken
    assert evaluations(generator, frames, plan) + sum(more) == len(ticks)
    return found, whole


STEPS = StepPlan("FSSFSC", overlaps=(0, 2))
UNLIKE = [  # runs of poses that are unlike; runs of frames that are the base model's
    (60, [(20, 30)], [(16, 32)]), (60, [(50, 60)], [(44, 60)]), (100, [(95, 100)], [(84, 100)]),
    (200, [(33, 48), (160, 170)], [(32, 48), (160, 176)]),
    (200, [(40, 150)], [(32, 48), (48, 80), (80, 144), (144, 200)]),  # 1, 2, 4 stretches at a time, the rest
]


@pytest.mark.parametrize("overlap", [0, 2])
@pytest.mark.parametrize(("frames", "unlike", "base_runs"), UNLIKE)
def test_stretches_that_are_unlike_are_the_base_models_and_all_others_the_plans(
        plain, frames, unlike, base_runs, overlap):
    generator = mixing(plain(steps=6))
    generator.windows = OverlapWindows(4, overlap)
    steps = replace(STEPS, overlaps=())
    plan, constants = unlike_at(frames, steps, *unlike)
    found, whole = both_ways(generator, plan, constants, frames)
    base, fast = (at_once(generator, each, constants, frames).latents for each in (None, steps))
    theirs = np.zeros(frames, bool)
    for begin, end in base_runs:
        theirs[begin:end] = True
    assert found[:, ~theirs].tobytes() == fast[:, ~theirs].tobytes() and whole.taken == plan.actions
    off, plans_off = (np.abs(each - base)[:, theirs].max() for each in (found, fast))
    assert off == 0 if overlap == 0 else 0 < off < 0.7 * plans_off  # windows beyond are missing
    shown = f"at latent frames {base_runs[0][0]} to {base_runs[0][1] - 1} "
    shown += f"and others, {theirs.sum()} of" if base_runs[1:] else "of"
    assert f"{shown} {frames}" in whole.unlike


def test_a_clip_that_is_unlike_from_the_start_is_the_base_models_as_a_whole(plain):
    generator = mixing(plain(steps=6))
    plan, constants = unlike_at(90, STEPS, (0, 8))
    found, whole = both_ways(generator, plan, constants, 90)
    assert found.tobytes() == at_once(generator, None, constants, 90).latents.tobytes()
    assert whole.taken == "F" * 6 and "at latent frames" not in whole.unlike


@pytest.mark.parametrize("rule", [MovingWindows(8, 2), ReferenceWindows(6, 3), OverlapWindows(26, 4)])
def test_where_each_frame_hangs_on_all_the_base_model_makes_the_whole_clip(plain, rule):
    generator = mixing(plain(steps=6))
    generator.windows, frames = rule, 26
    plan, constants = unlike_at(rule.latent_frames(frames), StepPlan("FSSFSC"), (20, 27))
    found, _ = both_ways(generator, plan, constants, frames)
    assert found.tobytes() == at_once(generator, None, constants, frames).latents.tobytes()


@pytest.mark.parametrize("rule", [Around(), UniformWindows(4, 1, strides=3)])
def test_windows_around_the_end_of_a_clip_are_part_of_its_last_stretch(plain, rule):
    generator = mixing(plain(steps=6))
    generator.windows = rule
    _, whole = both_ways(generator, *unlike_at(70, StepPlan("FSSFSC"), (66, 70)), 70)
    assert "at latent frames 54 to 69 of 70" in whole.unlike


@pytest.mark.parametrize("seed", range(40))
def test_unlike_stretches_of_any_rule_and_plan_are_the_same_at_once_and_streamed(plain, seed):
    rule, plan, scheduler, frames, random = random_case(seed)
    generator = mixing(plain(guidance=float(random.choice([1.0, 2.0]))))
    generator.windows, generator.scheduler = rule, scheduler
    begins = random.integers(0, frames, 3)
    runs = [(begin, begin + int(random.integers(1, 40))) for begin in begins]
    both_ways(generator, *unlike_at(frames, plan, *runs), frames, int(random.integers(1, 20)))


def test_windows_with_conditions_of_their_own_see_them_in_a_part_of_a_clip_too(plain):
    generator = mixing(plain(steps=4))
    generator.windows = rule = PrivateStarts(8, 2)
    frames, steps = 60, StepPlan("FSFC")
    given = constants_of(rule.conditions(frames))
    plan, _ = unlike_at(frames, steps)
    given["pose"][:, 33:44] *= 100
    found, whole = both_ways(generator, plan, given, frames)
    base, fast = (at_once(generator, each, given, frames).latents for each in (None, steps))
    assert found[:, :32].tobytes() == fast[:, :32].tobytes() and whole.unlike
    assert np.abs(found - base)[:, 32:48].max() < 0.7 * np.abs(fast - base)[:, 32:48].max()


@pytest.mark.parametrize("limit", [0.05, 0.2, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("frames", [9, 40, 130])
def test_predictions_that_change_too_far_are_seen_at_the_same_frames(plain, limit, frames):
    generator = mixing(plain(steps=6))
    plan = StepPlan("FSSFSF", guard=Guard(5, (0.0, limit, limit)))
    whole = at_once(generator, plan, constants_of(frames), frames)
    found, clip = streamed(generator, plan, constants_of(frames), frames)
    assert found.tobytes() == whole.latents.tobytes() and clip.unlike == whole.unlike


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
