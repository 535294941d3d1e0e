"""Clips sampled piece by piece: the same numbers as at once, early, and without holding the clip."""

import tracemalloc
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from generators.samplers import FlowMatchEuler, UniPcMultistep
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


def unlike_from(frame, frames, plan, generator):
    """A plan whose guard takes the poses from that frame on for unlike, and constants of such a clip."""
    changes = (0.0,) + (NEVER,) * (len(plan.evaluated) - 1)
    guard = Guard(5, changes, ("pose",), ((0.0,) * 12,), ((1.0,) * 12,), (1.0,))
    constants = constants_of(frames)
    constants["pose"][:, frame:] *= 100
    return StepPlan(plan.actions, overlaps=plan.overlaps, guard=guard), constants


@pytest.mark.parametrize(("frame", "frames"), [(0, 60), (20, 60), (33, 200), (95, 100), (150, 160)])
def test_where_the_guard_fires_on_a_stretch_both_run_the_base_models_plan_from_there(plain, frame, frames):
    generator, ticks, more = mixing(plain(steps=6)), [], []
    plan, constants = unlike_from(frame, frames, StepPlan("FSSFSC", overlaps=(0, 2)), generator)
    whole = at_once(generator, plan, constants, frames)
    found, clip = streamed(generator, plan, constants, frames, tick=lambda: ticks.append(1), more=more.append)
    assert found.tobytes() == whole.latents.tobytes()
    assert clip.unlike == whole.unlike and clip.taken == whole.taken == "F" * 6
    begin = frame // 16 * 16 if frame < frames - 16 - (frames - 16) % 16 else None
    plain_plan = StepPlan("FSSFSC", overlaps=(0, 2))
    base, fast = (at_once(generator, each, constants, frames).latents for each in (None, plain_plan))
    if begin is not None:
        assert found[:, begin:].tobytes() == base[:, begin:].tobytes()
        assert found[:, :begin].tobytes() == fast[:, :begin].tobytes()
    assert evaluations(generator, frames, plan) + sum(more) == len(ticks)


@pytest.mark.parametrize("limit", [0.05, 0.2, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("frames", [9, 40, 130])
def test_predictions_that_change_too_far_are_seen_at_the_same_frames(plain, limit, frames):
    generator = mixing(plain(steps=6))
    plan = StepPlan("FSSFSF", guard=Guard(5, (0.0, limit, limit)))
    whole = at_once(generator, plan, constants_of(frames), frames)
    found, clip = streamed(generator, plan, constants_of(frames), frames)
    assert found.tobytes() == whole.latents.tobytes() and clip.unlike == whole.unlike


def test_what_is_held_does_not_grow_with_the_clip(plain):
    generator, peaks = mixing(plain(steps=3)), []
    generator.noise_pieces = lambda frames, seed: (
        np.zeros((1, min(50, frames - n), 12, 8), np.float32) for n in range(0, frames, 50)
    )
    generator.denoise = lambda engine, latents, step, constants, conditional: latents * 0.5
    for frames in (500, 5000):
        def pieces():
            yield {"pose": np.ones((1, 10, 12, 8), np.float32), "reference": np.ones((1, 2), np.float32)}
            for _ in range(frames // 10 - 1):  # noqa: B023
                yield {"pose": np.ones((1, 10, 12, 8), np.float32)}

        clip = StreamedClip(Sampler(generator, {"denoise": None}), pieces(), frames, 7)
        tracemalloc.start()
        kept = [peak for _ in clip.latents() for peak in tracemalloc.get_traced_memory()[:1]]
        tracemalloc.stop()
        peaks.append(max(kept[5:]) - kept[5])
    assert peaks[1] < peaks[0] + 200_000  # the whole clip's poses and noise are 3.8 MB


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
