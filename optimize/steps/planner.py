"""Find all Pareto-optimal step plans from tables of errors and costs, without running a network.

A plan gives each step of the schedule an action: F evaluates both branches, S nothing, and a cheap action
less than F (C: the conditional branch, with the last difference of the branches). From an evaluated step it
jumps to the next one. The predicted error at the end is the sum over jumps of squared error times the gain
from there on.

A jump's error depends on the past only by the step evaluated before and the last full one. So shortest paths
over states (step, step before, last full step) give the front exactly: partial plans that reach a state are
kept unless another one has both less cost and less error. A Lagrangian sweep over the price of time would
give only the lower convex hull of the front; with few evaluations to place, much of the front is not on it,
and a tuner that bisects along the front would miss those plans. 25 steps take a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FULL, SKIP = "F", "S"
# Costs this near to each other are equal: floats added up in another order.
SAME = 1e-9


@dataclass(frozen=True)
class Costs:
    """The cost of an evaluated step, in seconds or any other unit.

    full: of F. cheap: of each other action, by its letter. ValueError: a cost is not above 0.
    """

    full: float
    cheap: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, cost in {FULL: self.full, **self.cheap}.items():
            if not (np.isfinite(cost) and cost > 0):
                raise ValueError(f"{name} costs {cost}; measure it, it must be above 0 and finite")


@dataclass(frozen=True, eq=False)
class Tables:
    """Squared errors of the jumps over a schedule of N steps, see jump_tables.jump_errors.

    full (N, N, N + 1): [i, k, j] from step i to the latents of step j, where k was evaluated before i; the
    first step's are at [0, 0, j]. cheap: by an action's letter (N, N, N, N + 1), [i, k, m, j], where m is the
    last full step. inf forbids a jump; impossible entries (k >= i, m > k, j <= i) are not read. gains
    (N + 1,): the squared error at the end that comes from one of 1 in the latents of step j; gains[N] is 1,
    gains[0] is not used. ValueError: a shape or a number is wrong.

    Adding squares assumes errors without a common direction. Errors of a reused difference have one, so
    jump_tables.weigh_kept weighs them by real runs: in one trial, the PSNR of twelve plans correlated 0.55
    with the error predicted without it, and 0.95 with a weight of 8.
    """

    full: np.ndarray
    cheap: Mapping[str, np.ndarray]
    gains: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.full)
        shapes = {FULL: (n, n, n + 1)} | dict.fromkeys(self.cheap, (n, n, n, n + 1))
        for name, table in {FULL: self.full, **self.cheap}.items():
            if n < 1 or table.shape != shapes[name]:
                raise ValueError(f"table {name}: needs the shape {shapes[name]}, has {table.shape}")
            if not (table >= 0).all():
                raise ValueError(f"table {name}: has NaN or negative errors; mark what cannot be with inf")
        wrong = [name for name in self.cheap if len(name) != 1 or name in (FULL, SKIP)]
        if wrong:
            raise ValueError(f"cheap actions need a letter each other than {FULL} and {SKIP}, got {wrong}")
        if self.gains.shape != (n + 1,) or not (np.isfinite(self.gains) & (self.gains > 0)).all():
            raise ValueError(f"gains: needs {n + 1} finite numbers above 0, one for each step and the end")

    @property
    def steps(self) -> int:
        """N, the steps of the schedule."""
        return len(self.full)


@dataclass(frozen=True)
class Plan:
    """A plan's actions, a letter for each step of the schedule, with predicted seconds and squared error."""

    actions: str
    seconds: float
    error: float


def front(tables: Tables, costs: Costs) -> list[Plan]:
    """Return the plans that no other beats in both predicted seconds and error, fastest first.

    Of plans that are equal in both, one is given. ValueError: no plan reaches the end.
    """
    if tables.cheap.keys() != costs.cheap.keys():
        raise ValueError(
            f"tables for {sorted(tables.cheap)} but costs of {sorted(costs.cheap)}; give both for each action"
        )
    start = _Partial(np.zeros(1), np.zeros(1), np.full((1, tables.steps), ord(SKIP), np.uint8))
    reached: list[States] = [{(0, 0): start}, *({} for _ in range(tables.steps))]
    for step in range(tables.steps):
        _extend(reached, step, tables, costs)
        reached[step] = {}  # frees memory: longer partial plans include these
    if not reached[-1]:
        raise ValueError("no plan reaches the end: too many jumps are inf; measure more of them")
    ends = _best(list(reached[-1].values()))
    texts = [row.tobytes().decode("ascii") for row in ends.actions]
    found = zip(texts, ends.errors, strict=True)
    return _sorted_front([Plan(text, seconds_of(text, costs), float(error)) for text, error in found])


class _Partial(NamedTuple):
    """Partial plans that reach one state, none beaten by another.

    seconds, errors: (n,). actions: (n, N) letters as bytes.
    """

    seconds: np.ndarray
    errors: np.ndarray
    actions: np.ndarray


# By the step evaluated before and the last full one.
States = dict[tuple[int, int], _Partial]


def _extend(reached: list[States], step: int, tables: Tables, costs: Costs) -> None:
    """Extend the partial plans that reached step by an action there and a jump to every later step."""
    arrived = reached[step]
    befores, fulls = ({state[number] for state in arrived} for number in (0, 1))
    for last in fulls if step else ():  # a cheap first step would have nothing to reuse
        known = {before: partial for (before, full), partial in arrived.items() if full == last}
        actions = {name: (table[step, :, last], costs.cheap[name]) for name, table in tables.cheap.items()}
        _add_jumps(reached, step, last, known, actions, tables.gains)
    # After a full step the last full one before it does not matter, so plans that differ in it compete.
    known = {k: _best([each for (before, _), each in arrived.items() if before == k]) for k in befores}
    _add_jumps(reached, step, step, known, {FULL: (tables.full[step], costs.full)}, tables.gains)


def _add_jumps(
    reached: list[States],
    step: int,
    full: int,
    known: Mapping[int, _Partial],
    actions: Mapping[str, tuple[np.ndarray, float]],
    gains: np.ndarray,
) -> None:
    """Add to all later steps the plans that take one of the actions at step and jump there.

    known: partial plans that reached step, by the step evaluated before. full: the last full step after the
    action. actions: by letter, the errors [before, to] and the cost of each.
    """
    if not known or not actions:
        return
    before = np.concatenate([np.full(len(partial.seconds), k) for k, partial in known.items()])
    base, errors, so_far = (np.concatenate(column) for column in zip(*known.values(), strict=True))
    seconds = np.concatenate([base + cost for _, cost in actions.values()])
    letters = np.repeat([ord(name) for name in actions], len(base)).astype(np.uint8)
    for to in range(step + 1, len(gains)):
        sums = np.concatenate([errors + gains[to] * table[before, to] for table, _ in actions.values()])
        kept = _unbeaten(seconds, sums)
        if not len(kept):
            continue
        taken = so_far[kept % len(base)]
        taken[:, step] = letters[kept]
        reached[to][step, full] = _Partial(seconds[kept], sums[kept], taken)


def _sorted_front(plans: list[Plan]) -> list[Plan]:
    """Sort by seconds, and drop plans that another beats; seconds that differ by rounding count as equal."""
    kept: list[Plan] = []
    for plan in sorted(plans, key=lambda plan: (plan.seconds, plan.error)):
        if kept and plan.error >= kept[-1].error:
            continue
        if kept and plan.seconds <= kept[-1].seconds * (1 + SAME):
            kept.pop()
        kept.append(plan)
    return kept


def _best(partials: Sequence[_Partial]) -> _Partial:
    """Return the partial plans of several states that none of the others beats."""
    columns = [np.concatenate(column) for column in zip(*partials, strict=True)]
    kept = _unbeaten(columns[0], columns[1])
    return _Partial(*(column[kept] for column in columns))


def _unbeaten(seconds: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return the indices of those with less error than all that cost no more, cheapest first; finite ones."""
    order = np.lexsort((errors, seconds))
    ordered = errors[order]
    least = np.minimum.accumulate(np.concatenate([[np.inf], ordered]))
    return order[ordered < least[:-1]]


def seconds_of(actions: str, costs: Costs) -> float:
    """Return what a plan of these actions costs for one window."""
    counted = {FULL: costs.full, **costs.cheap}
    return float(sum(actions.count(name) * cost for name, cost in counted.items()))
