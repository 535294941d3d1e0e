"""Predict the error of a given plan from the planner's tables, jump by jump."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from optimize.steps.planner import FULL, SKIP, Tables


class Jump(NamedTuple):
    """A jump from an evaluated step to the next one, or to the end of the schedule."""

    step: int
    action: str
    before: int | None  # the step evaluated before; None for the first
    full: int  # the last full step: this one, if its action is F
    to: int


def jumps(actions: str) -> Iterator[Jump]:
    """Give the jumps of a plan's actions, in order. ValueError: the first action is not F."""
    if actions[:1] != FULL:
        raise ValueError(f"the first action must be {FULL}, nothing is known before it; got {actions!r}")
    evaluated = [step for step, action in enumerate(actions) if action != SKIP]
    before, full = None, 0
    for step, to in zip(evaluated, [*evaluated[1:], len(actions)], strict=True):
        full = step if actions[step] == FULL else full
        yield Jump(step, actions[step], before, full, to)
        before = step


def predicted_error(tables: Tables, actions: str) -> float:
    """Return the squared error that a plan of these actions ends with. ValueError: unknown actions."""
    if len(actions) != tables.steps or not set(actions) <= {FULL, SKIP, *tables.cheap}:
        letters = ", ".join([FULL, SKIP, *tables.cheap])
        raise ValueError(f"a plan here is {tables.steps} letters out of {letters}; got {actions!r}")
    error = 0.0
    for step, action, before, full, to in jumps(actions):
        index = (step, before or 0) if action == FULL else (step, before, full)
        table = tables.full if action == FULL else tables.cheap[action]
        error += float(tables.gains[to] * table[(*index, to)])
    return error
