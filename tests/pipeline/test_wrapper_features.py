"""What a wrapper may have beyond the simplest: batched branches, more of them, noise, windows that move."""

import numpy as np
import pytest

from engines.errors import UsageError
from generators.contract import GeneratorError
from generators.diffusion_grids import DdimScheduler
from generators.noise import step_noise
from generators.uniform_windows import MovingWindows, UniformWindows
from generators.windows import ContinuationWindows, OverlapWindows
from pipeline.caches.technique import TechniqueChoice
from pipeline.recipe import Recipe, RecipeError
from pipeline.sampler import Sampler, denoise_loop, evaluations
from pipeline.step_plan import StepPlan

FRAMES = 40


def conditions(frames):
    places = np.arange(frames, dtype=np.float32)[None, :, None, None] / 10
    return {"pose": np.tile(places, (1, 1, 12, 8)), "reference": np.ones((1, 2, 12, 8), np.float32)}


def run(generator, actions=None, frames=FRAMES, seed=1, technique=None):
    if technique:
        recipe = Recipe("t", technique=technique)
        generator = recipe.adapt(generator)
    plan = StepPlan(actions) if actions else None
    open_denoiser = recipe.open_denoiser if technique else None
    sampler = Sampler(generator, generator.engines(), plan, open_denoiser)
    return sampler.sample(conditions(frames), frames, seed)


def flow(branch, latents, pose):
    levels = {True: 1.0, False: 0.2, "both": 1.0, "picture": 0.5, "neither": 0.2}
    return np.float32(levels[branch]) * (np.sin(latents) - pose)


@pytest.fixture
def one(plain):
    """A generator that predicts one branch at a time."""
    generator = plain()
    generator.flow = flow
    return generator


@pytest.fixture
def batched(plain):
    """The same one, which predicts all branches of a window at once."""

    class Batched(plain):
        denoise = None

        def denoise_branches(self, engine, latents, step, constants, branches):
            self.calls.append(tuple(branches))
            return np.concatenate([flow(branch, latents, constants["pose"]) for branch in branches])

    return Batched()


@pytest.mark.parametrize(("actions", "calls"), [
    (None, [(True, False)] * 9), ("FCF", [(True, False)] * 3 + [(True,)] * 3 + [(True, False)] * 3)])
def test_branches_of_a_window_are_one_call_with_the_result_of_several(one, batched, actions, calls):
    assert run(batched, actions).latents.tobytes() == run(one, actions).latents.tobytes()
    assert batched.calls == calls


def test_techniques_ask_for_one_branch_at_a_time(one, batched):
    technique = TechniqueChoice("uniform-skip", {"every": 2})
    together, alone = (run(each, technique=technique).latents for each in (batched, one))
    assert together.tobytes() == alone.tobytes()
    assert set(batched.calls) == {(True,), (False,)}


def test_an_answer_of_another_shape_is_refused(batched):
    batched.denoise_branches = lambda engine, latents, *rest: latents
    with pytest.raises(GeneratorError, match=r"gives \(1, 16, 12, 8\), expected one array \(2, 16, 12, 8\)"):
        run(batched)


def test_weights_of_two_branches_are_guidance_by_another_name(one, plain):
    named = plain(guidance={"both": 2.0, "neither": -1.0})
    named.flow = flow
    for actions in (None, "FCF", "FSC"):
        np.testing.assert_allclose(run(named, actions).latents, run(one, actions).latents, rtol=0, atol=2e-6)


def test_three_branches_are_added_by_their_weights_and_a_plan_counts_them(plain):
    generator = plain(steps=1, guidance={"both": 3.0, "picture": -1.5, "neither": -0.5})
    generator.flow = lambda branch, latents, pose: {"both": 1.0, "picture": 2.0, "neither": 4.0}[branch]
    moved = generator.noise(FRAMES, 1) - run(generator).latents
    np.testing.assert_allclose(moved, 3 * 1 - 1.5 * 2 - 0.5 * 4, rtol=0, atol=1e-5)
    assert [call.conditional for call in generator.calls] == ["both", "picture", "neither"] * 3
    assert StepPlan("FCS").calls(generator.guidance, generator.windows, FRAMES) == 3 * (3 + 1)


def test_where_one_branch_is_evaluated_what_the_others_add_is_kept(plain):
    generator = plain(steps=2, guidance={"both": 3.0, "picture": -1.5, "neither": -0.5})
    generator.flow = lambda branch, latents, pose: {"both": 1.0, "picture": 2.0, "neither": 4.0}[branch]
    np.testing.assert_allclose(run(generator, "FC").latents, run(generator, "FF").latents, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 2.0, "b": 1.0}])
def test_weights_that_do_not_add_up_are_refused(plain, weights):
    with pytest.raises(GeneratorError, match="weights of two or more branches that add up to 1"):
        run(plain(guidance=weights))


@pytest.mark.parametrize("name", ["guidance-interval", "fastercache"])
def test_techniques_of_the_unconditional_branch_refuse_named_ones(plain, name):
    generator = plain(guidance={"a": 2.0, "b": -2.0, "c": 1.0})
    with pytest.raises(RecipeError, match="one unconditional branch"):
        Recipe("r", technique=TechniqueChoice(name)).adapt(generator)


def test_a_guidance_interval_is_not_taken_for_steps_counted_to_a_thousand(plain):
    generator = plain()
    generator.scheduler = DdimScheduler(3)
    with pytest.raises(RecipeError, match="times from 1 to 0"):
        Recipe("r", technique=TechniqueChoice("guidance-interval")).adapt(generator)


# Noise


@pytest.fixture
def noisy(one):
    """A generator whose scheduler adds noise."""
    one.scheduler = DdimScheduler(5, "v", "trailing", eta=1.0)
    return one


def test_noise_at_steps_is_the_seeds_own_whatever_is_left_out(noisy):
    asked = []
    noisy.step_noise = lambda frames, seed, step: (
        asked.append((frames, seed, step)), step_noise((1, frames, 12, 8), seed, step))[1]
    base = run(noisy).latents
    assert asked[:4] == [(FRAMES, 1, step) for step in range(4)]
    asked.clear()
    run(noisy, "FSSFC")
    assert asked[:4] == [(FRAMES, 1, step) for step in range(4)]
    del noisy.step_noise  # our own is the same
    assert run(noisy).latents.tobytes() == run(noisy).latents.tobytes() == base.tobytes()
    assert np.abs(run(noisy, seed=2).latents - base).mean() > 0.1


def test_noise_at_steps_does_not_depend_on_windows(noisy, plain):
    """A prediction that sees no window: then windows make no difference, so noise must make none."""
    noisy.flow = lambda branch, latents, pose: 0.1 * latents
    wide = run(noisy).latents
    noisy.windows = OverlapWindows(8, 2)
    np.testing.assert_allclose(run(noisy).latents, wide, rtol=0, atol=1e-5)


def test_each_window_that_goes_on_has_its_own_part_of_the_noise(noisy):
    noisy.windows, noisy.per_frame = ContinuationWindows(16, 4), frozenset()
    noisy.carry = lambda engines, constants, number, tail: {"pose": np.zeros((1, 16, 12, 8), np.float32)}
    noisy.flow = lambda branch, latents, pose: 0.1 * latents
    segments = Sampler(noisy, noisy.engines()).segments({}, 28, 1)
    parts = [(segment.state.latents, list(segment.pixels))[0] for segment in segments]
    noisy.windows, noisy.per_frame = OverlapWindows(32, 0), frozenset({"pose"})
    whole = run(noisy, frames=32).latents
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-5)


def test_noise_of_another_shape_is_refused(noisy):
    noisy.step_noise = lambda frames, seed, step: step_noise((1, 1, 12, 8), seed, step)
    with pytest.raises(GeneratorError, match=r"step_noise gives \(1, 1, 12, 8\) float32, and latents are \("):
        run(noisy)


def test_fitting_to_runs_with_noise_is_refused(noisy):
    clip = Sampler(noisy, noisy.engines()).blended(conditions(FRAMES), FRAMES)
    with pytest.raises(UsageError, match="step plans are fitted to runs without"):
        next(denoise_loop(clip, noisy.scheduler, noisy.noise(FRAMES, 1), StepPlan("FFFFF"), 1))
    fitted = StepPlan("FSFFF", corrections=[[0.1, 0, 0, 0]] + [[0, 0, 0, 0]] * 3)
    with pytest.raises(RecipeError, match="corrections: were fitted to a scheduler without noise"):
        Recipe("r", steps=fitted).adapt(noisy)


# Windows


def uniform(step, num_frames, context_size, context_stride=3, context_overlap=4, closed_loop=True):
    """AnimateDiff's rule as its users publish it (Apache-2.0), to compare with."""
    def ordered_halving(val):
        return int(f"{val:064b}"[::-1], 2) / (1 << 64)

    if num_frames <= context_size:
        yield list(range(num_frames))
        return
    context_stride = min(context_stride, int(np.ceil(np.log2(num_frames / context_size))) + 1)
    for context_step in 1 << np.arange(context_stride):
        pad = int(round(num_frames * ordered_halving(step)))
        for j in range(int(ordered_halving(step) * context_step) + pad,
                       num_frames + pad + (0 if closed_loop else -context_overlap),
                       (context_size * context_step - context_overlap)):
            yield [e % num_frames for e in range(j, j + context_size * context_step, context_step)]


@pytest.mark.parametrize("frames", [17, 24, 31, 40, 100])
@pytest.mark.parametrize("strides", [1, 3])
@pytest.mark.parametrize("closed", [True, False])
def test_uniform_windows_are_those_of_animatediff(frames, strides, closed):
    rule = MovingWindows(16, 4, strides, closed)
    for step in range(6):
        found = [window.tolist() for window in rule.at(step).window_indices(frames)]
        assert found == list(uniform(step, frames, 16, strides, 4, closed))
    still = [window.tolist() for window in UniformWindows(16, 4, strides, closed).window_indices(frames)]
    assert still == list(uniform(0, frames, 16, strides, 4, closed))


@pytest.mark.parametrize("frames", [1, 5, 16])
def test_a_clip_no_longer_than_a_uniform_window_is_one_that_is_full(one, frames):
    one.windows = UniformWindows(16, 4)
    assert run(one, frames=frames).latents.shape == (1, frames, 12, 8)
    assert one.calls[0].constants["pose"][0, :, 0, 0].tolist() == pytest.approx(
        np.minimum(np.arange(16), frames - 1) / 10)


def test_windows_that_move_are_others_at_each_step(one):
    one.windows = MovingWindows(16, 4)
    run(one)
    seen = [(call.step, round(10 * call.constants["pose"][0, 0, 0, 0].item())) for call in one.calls
            if call.conditional]
    assert seen == [(step, window[0]) for step in range(3) for window in uniform(step, FRAMES, 16, 1)]
    assert len(seen) == evaluations(one, FRAMES)


def test_a_recipes_overlap_and_plan_keep_windows_moving(one):
    adapted = Recipe("r", overlap=8, steps=StepPlan("FSF", overlaps=[2])).adapt(one_moving(one))
    plan = StepPlan("FSF", overlaps=[2])
    assert plan.windows(0, adapted.windows) == MovingWindows(16, 2, step=0)
    assert plan.windows(2, adapted.windows) == MovingWindows(16, 8, step=2)


def one_moving(one):
    one.windows = MovingWindows(16, 4)
    return one


def test_what_keeps_predictions_of_windows_refuses_windows_that_move(one):
    with pytest.raises(RecipeError, match="the windows of plain change by step; use a step plan"):
        run(one_moving(one), technique=TechniqueChoice("uniform-skip", {"every": 2}))
    run(one_moving(one), technique=TechniqueChoice("fewer-steps", {"steps": 2}))
