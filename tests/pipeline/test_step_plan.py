"""Step plans: the full one is the base model's run, kept predictions and jumps, no leaks."""

import numpy as np
import pytest

from generators.samplers import FlowMatchEuler
from pipeline.sampler import Sampler, evaluations
from pipeline.sampler_state import SamplerState
from pipeline.step_plan import StepPlan, StepPlanError
from tests.pipeline.test_sample import conditions

GUIDANCE = 1.5


def run(generator, plan, frames=40, seed=1):
    return Sampler(generator, generator.engines(), plan).sample(conditions(frames), frames, seed)


@pytest.fixture
def drifting(plain):
    """A generator of 8 steps whose branches differ, and change from step to step and with the latents."""
    def make(**options):
        generator = plain(steps=8, guidance=GUIDANCE, **options)

        def flow(conditional, latents, pose):
            step = generator.calls[-1].step
            return latents * (0.5 + 0.1 * step) + (0.3 * step + 0.01 * pose.mean() if conditional else 0.2)

        generator.flow = flow
        return generator
    return make


def walked(plan, predictions, steps, guidance=GUIDANCE, start=1.0):
    """A walk over latents of one number; predictions: of both branches by step."""
    state = SamplerState(plan, FlowMatchEuler(steps), guidance, np.full(1, start, np.float32))
    for step in range(steps):
        values = {"F": 2, "C": 1, "S": 0}[plan.actions[step]]
        state.advance(step, *(np.full(1, v, np.float32) for v in predictions.get(step, ())[:values]))
    return state


@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_a_plan_of_all_f_is_bit_exact_with_the_baseline(drifting, guidance):
    generator = drifting()
    generator.guidance = guidance
    base, planned = run(generator, None), run(generator, StepPlan("F" * 8))
    assert base.latents.tobytes() == planned.latents.tobytes() and planned.taken == "F" * 8


@pytest.mark.parametrize(("actions", "calls"), [("FFFFFFFF", 16), ("FSSSSSSS", 2), ("FSCSFSSC", 6)])
def test_only_what_an_action_names_is_evaluated(drifting, actions, calls):
    generator, windows = drifting(), 3
    plan = StepPlan(actions)
    state = run(generator, plan)
    assert len(generator.calls) == calls * windows == plan.branches * windows
    assert evaluations(generator, 40, plan) == len(plan.evaluated) * windows
    assert {call.step for call in generator.calls} == set(plan.evaluated)
    assert state.taken == actions and state.unlike is None


def test_first_steps_have_windows_that_overlap_less_and_later_ones_the_generators_own(drifting):
    """32 frames: 2 windows of 16 without overlap, 3 that share 4 frames."""
    generator = drifting()
    plan = StepPlan("FSCSFSSS", overlaps=(0, 2))
    state = run(generator, plan, frames=32)
    counts = {0: 2, 2: 3, 4: 3}
    assert {step: sum(call.step == step and call.conditional for call in generator.calls)
            for step in counts} == counts
    assert evaluations(generator, 32, plan) == 8
    assert len(generator.calls) == plan.calls(GUIDANCE, generator.windows, 32) == 2 * 2 + 3 + 2 * 3
    assert state.latents.tobytes() != run(drifting(), StepPlan("FSCSFSSS"), frames=32).latents.tobytes()


def test_c_guides_by_the_difference_that_the_last_f_has_left():
    state = walked(StepPlan("FC"), {0: (3, 1), 1: (5,)}, 2)
    guided = [1 + 1.5 * (3 - 1), 5 + 0.5 * (3 - 1)]
    assert state.latents[0] == pytest.approx(1 - 0.5 * sum(guided))


def test_s_goes_on_with_the_prediction_that_was_made_last():
    state = walked(StepPlan("FSSC"), {0: (3, 1), 3: (5,)}, 4)
    assert state.latents[0] == pytest.approx(1 - 0.25 * (3 * 4 + 6))


def test_where_predictions_do_not_change_skipping_and_keeping_change_nothing(drifting):
    generator = drifting()
    generator.flow = lambda conditional, latents, pose: 3.0 if conditional else 1.0
    base = run(generator, None).latents
    for actions in ("FSSSSSSS", "FCCCCCCC", "FSCSFSSC"):
        np.testing.assert_allclose(run(generator, StepPlan(actions)).latents, base, rtol=0, atol=1e-5)


def test_levels_replace_what_a_correction_adds_to_each_frames_mean():
    start, flow = np.full((1, 2, 3, 1, 2), 4, np.float32), np.zeros((1, 2, 3, 1, 2), np.float32)
    start[..., 1], flow[..., 0] = 6, 1
    plan = StepPlan("FS", ((1, 2, 0, 0),), ((0, 10, 0, 0, 0.5, -0.5),))
    state = SamplerState(plan, FlowMatchEuler(2), 1.0, start)
    state.advance(0, flow)
    # Plain 3 and 6. The row adds 6 and 6, of level 6; levels want 10 * 0.5 and what each channel adds.
    assert state.latents[0, :, 0, 0].tolist() == [[8.5, 11.5], [7.5, 10.5]]


def test_a_correction_is_added_to_what_the_plain_plan_makes():
    rows = ((0.5, 2, 3, 100), (1, -1, 10, 0.25))  # nothing was predicted before the first step
    state = walked(StepPlan("FSCS", rows), {0: (3, 1), 2: (5,)}, 4, start=8.0)
    difference = 0.5 * (3 - 1)  # times guidance minus one
    first = (8 - 0.5 * (3 + difference)) + 0.5 * 8 + 2 * 3 + 3 * difference
    second = (first - 0.5 * (5 + difference)) + first - 5 + 10 * difference + 0.25 * 3
    assert state.latents[0] == pytest.approx(second)


def test_at_guidance_one_there_is_no_difference_to_put_in():
    state = walked(StepPlan("FS", ((0.5, 2, 3, 0),)), {0: (3,)}, 2, guidance=1.0, start=8.0)
    assert state.latents[0] == pytest.approx(8 - 3 + 0.5 * 8 + 2 * 3)


class StepByStep:
    """A grid as one of a user's own may be: it cannot leap."""

    steps, times = 4, np.linspace(1, 0, 5, dtype=np.float32)

    def solver(self):
        return self

    def advance(self, latents, prediction, step):
        return latents * np.float32(0.9) + prediction * np.float32(0.1)


def test_a_solver_that_cannot_leap_goes_over_skipped_steps_one_by_one():
    state = SamplerState(StepPlan("FSSC"), StepByStep(), 1.0, np.full(1, 8, np.float32))
    for step in range(4):
        state.advance(step, *([np.full(1, 2, np.float32)] if step in (0, 3) else []))
    assert state.latents[0] == pytest.approx(2 + (8 - 2) * 0.9**4)


def test_two_requests_in_a_row_know_nothing_of_each_other(drifting):
    plan = StepPlan("FSCSFSSC")
    generator = drifting()
    first = run(generator, plan, seed=1)
    run(generator, plan, frames=17, seed=2)
    assert run(generator, plan, seed=1).latents.tobytes() == first.latents.tobytes()


def test_what_one_window_predicts_reaches_only_the_frames_that_it_covers(drifting):
    """The first window of three covers frames 0 to 15; the others begin at 12 and 24."""
    plan, generator = StepPlan("FSCSFSSC"), drifting()
    generator.flow = lambda conditional, latents, pose: 1.0 + conditional
    base = run(generator, plan).latents
    generator.flow = lambda conditional, latents, pose: 1.0 + conditional + (pose[0, 0, 0, 0] == 0)
    other = run(generator, plan).latents
    differs = np.abs(other - base).max((0, 2, 3)) > 1e-4
    assert differs.tolist() == [True] * 16 + [False] * 24


@pytest.mark.parametrize(("arguments", "reason"), [
    (("",), "the first step must be F"), (("CS",), "the first step must be F"),
    (("FX",), "step 1 has the unknown action 'X'"), (("FS", ((1, 2, 3),)), "must be 1 rows of 4"),
    (("FF", ((1, 2, 3, 4),)), "must be 2 rows of 4"),
    (("FS", ((1, 2, 3, float("inf")),)), "must be finite"),
    (("FS", (), ((1, 2, 3, 4, 5),)), "level_corrections: must be a row for each"),
    (("F", ((1, 2, 3, 4),), ((1, 2, 3, 4),)), "level_corrections: must be a row for each"),
    (("FF", ((1, 2, 3, 4),) * 2, ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6))), "level_corrections: must"),
    (("FS", ((1, 2, 3, 4),), ((1, 2, 3, 4, float("nan")),)), "must be finite"),
    (("FF", ((0, 0, 0, 0), (0, 1, 0, 0))), "step 1 leaves nothing out, its row must be zeros; tune again"),
])
def test_a_plan_that_cannot_be_run_is_refused(arguments, reason):
    with pytest.raises(StepPlanError, match=reason):
        StepPlan(*arguments)


def test_a_plan_for_another_grid_is_refused(plain):
    with pytest.raises(StepPlanError, match="actions: 2 letters for a schedule of 3 steps; tune for this"):
        run(plain(steps=3), StepPlan("FS"))


@pytest.mark.parametrize(("actions", "steps", "right"), [
    ("FSSFSSFSS", 9, "FSSFSSFSS"), ("FS", 3, "FFS"), ("FSSFSSFSSFSSFSSFSSFSSFSSF", 4, "FSFS"),
    ("FFFFSSSS", 4, "FFSS"), ("FFFFSSSS", 16, "FFFFFFFFSSSSSSSS"), ("FCSS", 8, "FFCCSSSS"), ("FSSS", 1, "F")])
def test_a_plan_for_another_grid_is_refused_with_one_that_leaves_out_as_much(plain, actions, steps, right):
    plan = StepPlan(actions)
    assert plan.resized(steps) == right and StepPlan(right).check_steps(steps) is None
    if steps != len(actions):
        with pytest.raises(StepPlanError, match=f'actions = "{right}" alone'):
            plan.check_steps(steps)
