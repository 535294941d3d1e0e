"""The front holds exactly the plans that trying every one would leave, each with what its tables say."""

import itertools
import time

import numpy as np
import pytest

from lab.kinds.predicted import Jump, jumps, predicted_error
from optimize.steps.planner import Costs, Plan, Tables, front, seconds_of


def random_tables(steps, seed, letters="C"):
    """Errors that grow with the length of the jump, more or less; what cannot be is inf."""
    rng = np.random.default_rng(seed)
    length = np.maximum(np.arange(steps + 1) - np.arange(steps)[:, None], 0)  # [i, j]
    full = rng.uniform(0.3, 1, (steps, steps, steps + 1)) * length[:, None] ** 3.0
    cheap = {letter: rng.uniform(0.5, 3, (steps, steps, steps, steps + 1)) * length[:, None, None] ** 3.0
             for letter in letters}
    i, k, m, j = np.indices((steps, steps, steps, steps + 1))
    for table in cheap.values():
        table[~((m <= k) & (k < i) & (i < j))] = np.inf
    i, k, j = np.indices(full.shape)
    full[~(((k < i) | ((i == 0) & (k == 0))) & (i < j))] = np.inf
    return Tables(full, cheap, rng.uniform(0.5, 2, steps + 1))


def said_of(tables, costs, actions):
    """Seconds and error of a plan, step by step and by nothing of the planner's."""
    seconds, error, k, m, source = 0.0, 0.0, 0, 0, None
    for i, action in enumerate([*actions, "end"]):
        if action == "S":
            continue
        if source is not None:
            error += tables.gains[i] * source[i]
        if action == "end":
            return seconds, error
        if action == "F":
            m, source = i, tables.full[i, k]
        else:
            source = tables.cheap[action][i, k, m]
        seconds += costs.full if action == "F" else costs.cheap[action]
        k = i


def exhaustive(tables, costs):
    """The front by trying every plan: [(seconds, error)], fastest first."""
    letters = ["F", "S", *tables.cheap]
    rest = itertools.product(letters, repeat=tables.steps - 1)
    plans = sorted(said_of(tables, costs, ("F", *actions)) for actions in rest)
    kept = []
    for seconds, error in plans:
        if not kept or error < kept[-1][1]:
            if kept and seconds <= kept[-1][0] * (1 + 1e-12):  # the same ones, added up in another order
                kept.pop()
            kept.append((seconds, error))
    return kept


COSTS = [Costs(2.0, {"C": 1.0}), Costs(1.9, {"C": 1.03}), Costs(0.1, {"C": 0.1 / 3}),
         Costs(1.0, {"C": 1.5})]


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("costs", COSTS, ids=str)
def test_the_front_is_what_trying_every_plan_leaves(steps, costs):
    for seed in range(8):
        tables = random_tables(steps, seed)
        found = front(tables, costs)
        wanted = exhaustive(tables, costs)
        assert len(found) == len(wanted)
        for plan, (seconds, error) in zip(found, wanted, strict=True):
            assert (plan.seconds, plan.error) == pytest.approx((seconds, error), rel=1e-9)
            assert said_of(tables, costs, plan.actions) == pytest.approx((seconds, error), rel=1e-9)


@pytest.mark.parametrize(("letters", "prices"), [("CH", (0.9, 0.25)), ("", ())])
def test_any_number_of_cheap_actions_is_planned_with(letters, prices):
    costs = Costs(1.7, dict(zip(letters, prices, strict=True)))
    for seed in range(5):
        tables = random_tables(5, seed, letters)
        found = [(plan.seconds, plan.error) for plan in front(tables, costs)]
        assert found == [pytest.approx(each, rel=1e-9) for each in exhaustive(tables, costs)]


def test_plans_off_the_convex_hull_are_on_the_front():
    found = front(random_tables(6, 0), Costs(2.0, {"C": 1.0}))
    hull = [found[0]]
    while hull[-1] is not found[-1]:
        at = hull[-1]
        behind = found[found.index(at) + 1:]
        hull.append(min(behind, key=lambda plan: (plan.error - at.error) / (plan.seconds - at.seconds)))
    assert 2 < len(hull) < len(found)


@pytest.mark.parametrize("costs", COSTS, ids=str)
def test_more_seconds_always_buy_less_error(costs):
    for seed in range(5):
        found = front(random_tables(12, seed), costs)
        assert all(one.seconds < other.seconds and one.error > other.error
                   for one, other in itertools.pairwise(found))


def test_plans_of_equal_seconds_are_one_even_where_floats_add_up_differently():
    for full, thirds in [(0.3, 0.1), (0.9, 0.3), (1.1, 1.1 / 3), (2.1, 0.7)]:  # 3 * 0.1 is not 0.3 in floats
        for seed in range(5):
            seconds = [plan.seconds for plan in front(random_tables(10, seed), Costs(full, {"C": thirds}))]
            assert min(np.diff(seconds)) > 0.9 * thirds


def test_every_plan_begins_full_and_is_as_long_as_the_grid():
    tables = random_tables(7, 0)
    tables.cheap["C"][:] = 0  # also as a first step
    found = front(tables, Costs(2.0, {"C": 1e-3}))
    assert all(plan.actions[0] == "F" and len(plan.actions) == 7 for plan in found)
    assert found[-1].actions.count("F") == 1 and found[-1].error > 0
    tables.full[0] = np.inf
    with pytest.raises(ValueError, match="no plan reaches the end"):
        front(tables, Costs(2.0, {"C": 1e-3}))


def test_what_a_table_says_of_jumps_that_cannot_be_is_not_looked_up():
    tables, costs = random_tables(7, 9), Costs(2.0, {"C": 1.0})
    full, cheap = (np.where(np.isinf(table), 0, table) for table in (tables.full, tables.cheap["C"]))
    filled = Tables(full, {"C": cheap}, tables.gains)
    assert front(filled, costs) == front(tables, costs)


def test_all_full_is_the_most_accurate_where_its_jumps_are_exact():
    tables = random_tables(6, 2)
    for i in range(6):
        tables.full[i, max(i - 1, 0), i + 1] = 0
    assert front(tables, Costs(2.0, {"C": 1.0}))[-1] == Plan("FFFFFF", 12.0, 0.0)


def test_all_full_has_the_error_of_its_tables():
    tables = random_tables(5, 3)
    chain = [(0, 0, 1), (1, 0, 2), (2, 1, 3), (3, 2, 4), (4, 3, 5)]
    error = sum(tables.gains[place[-1]] * tables.full[place] for place in chain)
    assert predicted_error(tables, "FFFFF") == pytest.approx(error, rel=1e-12)
    assert seconds_of("FFFFF", Costs(2.0, {"C": 1.0})) == 10.0


def test_predictions_agree_with_the_front():
    tables, costs = random_tables(9, 4, "CH"), Costs(1.9, {"C": 1.0, "H": 0.3})
    for plan in front(tables, costs):
        assert plan.seconds == seconds_of(plan.actions, costs)
        assert plan.error == pytest.approx(predicted_error(tables, plan.actions), rel=1e-12)


def test_errors_count_by_the_gain_of_the_step_they_land_on():
    tables = Tables(np.full((2, 2, 3), np.inf), {}, np.array([1.0, 10.0, 1.0]))
    tables.full[0, 0, 1:] = 3.0, 50.0
    tables.full[1, 0, 2] = 4.0
    assert front(tables, Costs(1.0, {})) == [Plan("FS", 1.0, 50.0), Plan("FF", 2.0, 34.0)]


def test_jumps_name_what_each_may_use():
    assert list(jumps("FSCSFCS")) == [
        Jump(0, "F", None, 0, 2), Jump(2, "C", 0, 0, 4), Jump(4, "F", 2, 4, 5), Jump(5, "C", 4, 4, 7)]


@pytest.mark.parametrize("actions", ["CFS", "SFF", ""])
def test_a_plan_that_does_not_begin_full_is_refused(actions):
    with pytest.raises(ValueError, match="first action must be F"):
        list(jumps(actions))


@pytest.mark.parametrize("actions", ["FS", "FSSS", "FHS"])
def test_a_plan_of_another_length_or_action_is_refused(actions):
    with pytest.raises(ValueError, match="a plan here is 3 letters out of F, S, C; got 'F"):
        predicted_error(random_tables(3, 0), actions)


def test_forbidden_jumps_are_not_taken():
    tables = random_tables(5, 5)
    tables.full[:, :, 5] = np.inf
    tables.cheap["C"][:, :, :, 5] = np.inf
    tables.full[4, 2, 5] = 1.0  # the only way to the end: full at step 4 with step 2 before it
    found = front(tables, Costs(2.0, {"C": 1.0}))
    assert found and all(plan.actions[2] != "S" and plan.actions[3:] == "SF" for plan in found)
    tables.full[4, 2, 5] = np.inf
    with pytest.raises(ValueError, match="no plan reaches the end.*measure more"):
        front(tables, Costs(2.0, {"C": 1.0}))



@pytest.mark.parametrize("cost", [0.0, -1.0, np.inf, np.nan])
def test_costs_that_were_not_measured_are_refused(cost):
    for make in (lambda: Costs(cost, {"C": 1.0}), lambda: Costs(1.0, {"C": cost})):
        with pytest.raises(ValueError, match="[FC] costs .* measure it, it must be above 0 and finite"):
            make()


@pytest.mark.parametrize("wrong", [np.nan, -1e-9])
@pytest.mark.parametrize("name", ["F", "C"])
def test_tables_with_nan_or_negative_errors_are_refused(name, wrong):
    tables = random_tables(4, 6)
    (tables.full if name == "F" else tables.cheap["C"])[..., -1][-1] = wrong
    with pytest.raises(ValueError, match=f"table {name}: has NaN or negative errors; mark what cannot be"):
        Tables(tables.full, tables.cheap, tables.gains)


def test_tables_that_do_not_belong_together_are_refused():
    good, other = random_tables(4, 7), random_tables(5, 7)
    with pytest.raises(ValueError, match=r"table C: needs the shape \(4, 4, 4, 5\), has \(5, 5, 5, 6\)"):
        Tables(good.full, other.cheap, good.gains)
    with pytest.raises(ValueError, match=r"table F: needs the shape \(4, 4, 5\), has \(4, 4, 4\)"):
        Tables(good.full[..., 1:], good.cheap, good.gains)
    with pytest.raises(ValueError, match="a letter each other than F and S, got"):
        Tables(good.full, {"S": good.cheap["C"]}, good.gains)
    for gains in (good.gains[1:], good.gains * 0, np.full(5, np.nan)):
        with pytest.raises(ValueError, match="gains: needs 5 finite numbers above 0"):
            Tables(good.full, good.cheap, gains)
    with pytest.raises(ValueError, match=r"tables for \['C'\] but costs of \['C', 'H'\]; give both"):
        front(good, Costs(2.0, {"C": 1.0, "H": 0.5}))


def test_a_real_grid_is_planned_at_once():
    tables = random_tables(25, 8, "CH")
    begin = time.process_time()
    front(tables, Costs(1.93, {"C": 1.0, "H": 0.37}))
    assert time.process_time() - begin < 3  # 0.2 s on one core; the bound is that of a tuner's patience
