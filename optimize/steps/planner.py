"""Every step plan worth having, fastest first, from tables of errors and costs; runs no network.

A plan gives each step of the base grid an action: F evaluates both branches, S nothing, a cheap action (C,
the conditional branch with the kept delta) something between. From an evaluated step it jumps straight to the
next one. The error predicted at the end is the sum over jumps of squared error times the gain from there on.

Of the past a jump sees only the step evaluated before and the last full one. So shortest paths over states of
(step, the one before, the last full one) give the front exactly: of the ways to a state those go on that no
other beats in both cost and error. A Lagrangian sweep over the price of time would give the lower convex hull
of the front alone; with few evaluations to place, much of the front lies off it, and a tuner that bisects
along the front would leap over those plans. 25 steps take a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FULL, SKIP = "F", "S"
# Costs this near to each other are one: floats added up in another order.
SAME = 1e-9


@dataclass(frozen=True)
class Costs:
    """What an evaluated step costs, in seconds or any other unit.

    full: of both branches. cheap: of every other action, by its letter. fixed: of a run without any step.
    """

    full: float
    cheap: Mapping[str, float]
    fixed: float = 0.0

    def __post_init__(self) -> None:
        for name, cost in {FULL: self.full, **self.cheap}.items():
            if not (np.isfinite(cost) and cost > 0):
                raise ValueError(f"{name} costs {cost}; measure it, it must be above 0 and finite")
        if not (np.isfinite(self.fixed) and self.fixed >= 0):
            raise ValueError(f"the fixed part costs {self.fixed}; measure it, or leave it 0")


@dataclass(frozen=True, eq=False)
class Tables:
    """Squared errors of jumps over a grid of N steps, as jump_tables.jump_errors gives them.

    full (N, N, N + 1): [i, k, j] from step i to the latents of step j, k being evaluated before i; the first
    step's at [0, 0, j]. cheap: by an action's letter (N, N, N, N + 1), [i, k, m, j], m being the last full
    step. inf forbids a jump; what cannot be (k >= i, m > k, j <= i) is never looked up. gains (N + 1,): what
    a squared error of 1 in the latents of step j has grown to at the end; gains[N] is 1, gains[0] not used.

    Squares add up as those of errors without a common direction. Errors of a kept delta have one, which is
    what jump_tables.weigh_kept is for, with a weight from real runs: where this was tried, the PSNR of twelve
    plans correlated 0.55 with the error predicted without it, 0.95 with a weight of 8.
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
        """N, the steps of the grid."""
        return len(self.full)


class Jump(NamedTuple):
    """From an evaluated step to the next one, or to the end of the grid."""

    step: int
    action: str
    before: int | None  # the step evaluated before; None for the first
    full: int  # the last full step: this one, if its action is F
    to: int


@dataclass(frozen=True)
class Plan:
    """actions: a letter for each step of the base grid. seconds and the squared error are predicted."""

    actions: str
    seconds: float
    error: float


def jumps(actions: str) -> Iterator[Jump]:
    """The jumps that a plan's actions make, in order."""
    if actions[:1] != FULL:
        raise ValueError(f"the first action must be {FULL}, nothing is known before it; got {actions!r}")
    evaluated = [step for step, action in enumerate(actions) if action != SKIP]
    before, full = None, 0
    for step, to in zip(evaluated, [*evaluated[1:], len(actions)], strict=True):
        full = step if actions[step] == FULL else full
        yield Jump(step, actions[step], before, full, to)
        before = step


def predict(tables: Tables, costs: Costs, actions: str) -> Plan:
    """The plan of these actions, with what the tables say of it."""
    _check(tables, costs)
    if len(actions) != tables.steps or not set(actions) <= {FULL, SKIP, *tables.cheap}:
        letters = ", ".join([FULL, SKIP, *tables.cheap])
        raise ValueError(f"a plan here is {tables.steps} letters out of {letters}; got {actions!r}")
    error = 0.0
    for step, action, before, full, to in jumps(actions):
        place = (step, before or 0) if action == FULL else (step, before, full)
        table = tables.full if action == FULL else tables.cheap[action]
        error += float(tables.gains[to] * table[(*place, to)])
    return Plan(actions, seconds_of(actions, costs), error)


def front(tables: Tables, costs: Costs) -> list[Plan]:
    """All plans that no other beats in both predicted seconds and error, fastest first; of equals, one."""
    _check(tables, costs)
    start = _Ways(np.zeros(1), np.zeros(1), np.full((1, tables.steps), ord(SKIP), np.uint8))
    reached: list[States] = [{(0, 0): start}, *({} for _ in range(tables.steps))]
    for step in range(tables.steps):
        _go_on(reached, step, tables, costs)
        reached[step] = {}  # the actions so far are in the ways that went on
    if not reached[-1]:
        raise ValueError("no plan reaches the end: too many jumps are inf; measure more of them")
    ends = _best(list(reached[-1].values()))
    texts = [row.tobytes().decode("ascii") for row in ends.actions]
    found = zip(texts, ends.errors, strict=True)
    return _sorted_front([Plan(text, seconds_of(text, costs), float(error)) for text, error in found])


def within(plans: Sequence[Plan], error: float) -> Plan:
    """The fastest plan whose predicted error is at most that."""
    allowed = [plan for plan in plans if plan.error <= error]
    if not allowed:
        least = min((plan.error for plan in plans), default=None)
        raise ValueError(f"no plan has a predicted error of {error} or less; the least to allow is {least}")
    return min(allowed, key=lambda plan: (plan.seconds, plan.error))


class _Ways(NamedTuple):
    """Ways to one state, none of them beaten by another: (n,) seconds and errors, (n, N) letters as bytes."""

    seconds: np.ndarray
    errors: np.ndarray
    actions: np.ndarray


# By the step evaluated before and the last full one.
States = dict[tuple[int, int], _Ways]


def _go_on(reached: list[States], step: int, tables: Tables, costs: Costs) -> None:
    """Add to all later steps the ways that evaluate step, from those that reached it."""
    arrived = reached[step]
    befores, fulls = ({state[place] for state in arrived} for place in (0, 1))
    for last in fulls if step else ():  # nothing is kept yet that a cheap first step could use
        known = {before: ways for (before, full), ways in arrived.items() if full == last}
        parts = {name: (table[step, :, last], costs.cheap[name]) for name, table in tables.cheap.items()}
        _leave(reached, step, last, known, parts, tables.gains)
    # A full step forgets which one was full before, so ways that differ in that alone compete.
    known = {k: _best([ways for (before, _), ways in arrived.items() if before == k]) for k in befores}
    _leave(reached, step, step, known, {FULL: (tables.full[step], costs.full)}, tables.gains)


def _leave(
    reached: list[States],
    step: int,
    full: int,
    known: Mapping[int, _Ways],
    parts: Mapping[str, tuple[np.ndarray, float]],
    gains: np.ndarray,
) -> None:
    """From step to all later ones by each of some actions.

    known: ways to step, by the step evaluated before. full: the last full step after the action. parts: by
    action its errors [before, to] and its cost.
    """
    if not known or not parts:
        return
    before = np.concatenate([np.full(len(ways.seconds), k) for k, ways in known.items()])
    base, errors, actions = (np.concatenate(column) for column in zip(*known.values(), strict=True))
    seconds = np.concatenate([base + cost for _, cost in parts.values()])
    letters = np.repeat([ord(name) for name in parts], len(base)).astype(np.uint8)
    for to in range(step + 1, len(gains)):
        sums = np.concatenate([errors + gains[to] * table[before, to] for table, _ in parts.values()])
        kept = _unbeaten(seconds, sums)
        if not len(kept):
            continue
        taken = actions[kept % len(base)]
        taken[:, step] = letters[kept]
        reached[to][step, full] = _Ways(seconds[kept], sums[kept], taken)


def _sorted_front(plans: list[Plan]) -> list[Plan]:
    """By seconds, with more error for less; of plans that differ in seconds by rounding alone the better."""
    kept: list[Plan] = []
    for plan in sorted(plans, key=lambda plan: (plan.seconds, plan.error)):
        if kept and plan.error >= kept[-1].error:
            continue
        if kept and plan.seconds <= kept[-1].seconds * (1 + SAME):
            kept.pop()
        kept.append(plan)
    return kept


def _best(ways: Sequence[_Ways]) -> _Ways:
    """Of several states' ways those that none beats."""
    columns = [np.concatenate(column) for column in zip(*ways, strict=True)]
    kept = _unbeaten(columns[0], columns[1])
    return _Ways(*(column[kept] for column in columns))


def _unbeaten(seconds: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Places of those with less error than all that cost no more, cheapest first; infinite errors never."""
    order = np.lexsort((errors, seconds))
    ordered = errors[order]
    least = np.minimum.accumulate(np.concatenate([[np.inf], ordered]))
    return order[ordered < least[:-1]]


def seconds_of(actions: str, costs: Costs) -> float:
    """What a plan of these actions costs, a window."""
    counted = {FULL: costs.full, **costs.cheap}
    return float(costs.fixed + sum(actions.count(name) * cost for name, cost in counted.items()))


def _check(tables: Tables, costs: Costs) -> None:
    if tables.cheap.keys() != costs.cheap.keys():
        raise ValueError(
            f"tables for {sorted(tables.cheap)} but costs of {sorted(costs.cheap)}; give both for each action"
        )
