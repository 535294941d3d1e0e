"""Clips of which stretches are unlike what a plan was tuned on: the same at once and piece by piece."""

from dataclasses import replace

import numpy as np
import pytest

from generators.uniform_windows import MovingWindows, UniformWindows
from generators.wan.unianimate import PrivateStarts
from generators.windows import OverlapWindows, ReferenceWindows
from pipeline.guard import Guard
from pipeline.step_plan import StepPlan
from tests.streamed_clips import (
    Around,
    at_once,
    both_ways,
    constants_of,
    mixing,
    random_case,
    streamed,
    unlike_at,
)

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


def test_windows_with_conditions_of_their_own_are_watched_and_made_where_their_frames_are(plain):
    generator = mixing(plain(steps=4))
    generator.windows = rule = PrivateStarts(8, 3)
    frames, steps = 120, StepPlan("FSFC")
    for begin, end, stretch in ((60, 66, (48, 64)), (97, 103, (96, 112)), (117, 120, (104, 120))):
        given = constants_of(rule.conditions(frames))
        for window in rule.window_indices(frames):
            seen = rule.seen(window)
            given["pose"][:, seen[(window >= begin) & (window < end)]] *= 100
        plan, _ = unlike_at(frames, steps)
        found, whole = both_ways(generator, plan, given, frames)
        base, fast = (at_once(generator, each, given, frames).latents for each in (None, steps))
        assert f"at latent frames {stretch[0]} to {stretch[1] - 1}" in whole.unlike
        inside = slice(*stretch)
        assert found[:, : stretch[0]].tobytes() == fast[:, : stretch[0]].tobytes()
        assert np.abs(found - base)[:, inside].max() < 0.7 * np.abs(fast - base)[:, inside].max()


@pytest.mark.parametrize("seed", range(20))
def test_where_each_frame_hangs_on_all_the_reason_is_the_same_too(plain, seed):
    random = np.random.default_rng(seed)
    generator = mixing(plain(steps=6))
    generator.windows = (OverlapWindows(40, 4), ReferenceWindows(6, 3), MovingWindows(8, 2))[seed % 3]
    limits = (0.0, *random.uniform(0.2, 1.2, 2))
    plan = StepPlan("FSSFSF", guard=Guard(5, limits, ("pose",), ((0.0,) * 12,), ((1.0,) * 12,), (1.0,)))
    constants = constants_of(generator.windows.latent_frames(40), seed)
    constants["pose"][:, 20:30] *= random.choice([1, 1, 100])
    both_ways(generator, plan, constants, 40)


@pytest.mark.parametrize(("letters", "factor", "why"), [
    ("FSSFSC", 1e3, "the prediction changed by "), ("FSSSSS", 1e38, "the recipe's steps give numbers")])
@pytest.mark.parametrize(("frames", "begin", "end"), [(16, 0, 16), (40, 0, 16), (90, 32, 48), (90, 74, 90)])
def test_a_plans_numbers_that_are_not_finite_have_the_base_models_made(
        plain, letters, factor, why, frames, begin, end):
    generator = mixing(plain(steps=6))
    mixed, generator.windows = generator.flow, OverlapWindows(8, 0)

    def overflowing(conditional, latents, pose):
        beyond = np.where(np.abs(latents) > 50, np.inf, 10)
        return mixed(conditional, np.nan_to_num(latents), pose) * np.where(np.abs(pose) > 50, beyond, 1)

    generator.flow = overflowing
    plan, constants = unlike_at(frames, StepPlan(letters), (begin + 4, end - 4))
    none = ((0.0,) * 4,) * (len(plan.evaluated) - 1)
    guard = replace(plan.guard, limits=(1e9,))
    plan = replace(plan, corrections=((0.0, factor, 0.0, 0.0), *none), guard=guard)
    with np.errstate(all="ignore"):
        found, whole = both_ways(generator, plan, constants, frames)
    assert whole.unlike.startswith(why) and np.isfinite(found).all()
    base = at_once(generator, None, constants, frames).latents
    assert found[:, begin:end].tobytes() == base[:, begin:end].tobytes()


@pytest.mark.parametrize("limit", [0.05, 0.2, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("frames", [9, 40, 130])
def test_predictions_that_change_too_far_are_seen_at_the_same_frames(plain, limit, frames):
    generator = mixing(plain(steps=6))
    plan = StepPlan("FSSFSF", guard=Guard(5, (0.0, limit, limit)))
    whole = at_once(generator, plan, constants_of(frames), frames)
    found, clip = streamed(generator, plan, constants_of(frames), frames)
    assert found.tobytes() == whole.latents.tobytes() and clip.unlike == whole.unlike
