"""Fit a step plan's jumps to base runs, on the latents that the plan itself leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from optimize.step_plan import TERMS, StepPlan, channels_beside, combine, level_of
from optimize.trajectory import fit, inner_products

Row = tuple[float, ...]


class TuningClip(Protocol):
    """A clip whose base run is known, and a denoiser that can be asked about it."""

    def base(self, step: int) -> np.ndarray:
        """Latents of the base run before that step; before step 0 the noise, after the last the result."""
        ...

    def predict(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The blended conditional prediction, and at F the unconditional one."""
        ...


def fit_jumps(
    plan: StepPlan,
    clips: Sequence[TuningClip],
    tick: Callable[[], None] = lambda: None,
    frame_axis: int = 2,
) -> tuple[StepPlan, list[np.ndarray]]:
    """The plan with jumps and levels, and the latents that each clip ends with by the others' rows.

    All clips walk side by side. At each evaluated step the row is the least-squares one from what is at hand
    there to the base runs' latents at the next evaluated step, every clip counting alike. So a row also
    mends what the rows before it have missed. A clip itself walks by rows that were fitted to the others
    (leave one out): it meets what a clip will that nothing was fitted to, where its own rows would flatter
    it by 1 to 3 dB. Costs the plan's evaluations on each clip, once. tick is called after each clip's
    evaluated step.
    """
    latents = [clip.base(0) for clip in clips]
    differences: list = [None] * len(clips)
    befores: list = [None] * len(clips)
    goals = [*plan.evaluated[1:], len(plan.actions)]
    jumps, levels = [], []
    channel_axis = channels_beside(frame_axis, latents[0].ndim)
    for step, goal in zip(plan.evaluated, goals, strict=True):
        terms = []
        for i, clip in enumerate(clips):
            conditional, *unconditional = clip.predict(latents[i], step, plan.actions[step])
            if unconditional:
                differences[i] = conditional - unconditional[0]
            terms.append((latents[i], conditional, differences[i], befores[i]))
            tick()
        row, level, latents = fit_jump(terms, [clip.base(goal) for clip in clips], channel_axis)
        jumps.append(row)
        levels.append(level)
        befores = [conditional for _, conditional, _, _ in terms]
    fitted = replace(plan, jumps=tuple(jumps), levels=tuple(levels))
    return fitted, latents


def fit_jump(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray], channel_axis: int
) -> tuple[Row, Row, list[np.ndarray]]:
    """Rows of jumps and levels, and where the rows fitted to the others bring each clip.

    terms: of each clip, arrays shaped like its goal. Levels have a row of their own where it brings clips
    nearer that it was not fitted to. Elsewhere they go as the rest: over many short jumps what a row gets
    wrong comes back and grows, from 0.0004 of the latents to 0.18 over 25 steps that were all evaluated.
    """
    row, of_others = least_squares(*_apart(terms, goals))
    level, levels_of_others = fit_levels(terms, goals, channel_axis)
    plain = [combine(factors, each) for factors, each in zip(of_others, terms, strict=True)]
    mended = [
        combine(factors, each, levels, channel_axis)
        for factors, each, levels in zip(of_others, terms, levels_of_others, strict=True)
    ]
    if _missed(mended, goals) < _missed(plain, goals):
        return row, level, mended
    return row, row + (0.0,) * (len(level) - TERMS), plain


def fit_levels(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray], channel_axis: int
) -> tuple[Row, list[Row]]:
    """A row of StepPlan.levels, which brings the levels of a sum nearest to those of the goals.

    terms: of each clip, arrays shaped like its goal. Clips count alike, whatever their length. Beside it, for
    each clip the row that the others alone give.
    """
    channels = goals[0].shape[channel_axis]

    def basis(own: Sequence[np.ndarray | None], goal: np.ndarray) -> list[np.ndarray]:
        level = level_of(goal)
        places = np.arange(channels).reshape([-1 if a == channel_axis else 1 for a in range(level.ndim)])
        ones = [np.broadcast_to(places == channel, level.shape) for channel in range(channels)]
        return [*(np.zeros_like(level) if term is None else level_of(term) for term in own), *ones, level]

    products = [inner_products(basis(own, goal)) for own, goal in zip(terms, goals, strict=True)]
    return _rows(products, range(TERMS + channels), TERMS + channels)


def _missed(ends: Sequence[np.ndarray], goals: Sequence[np.ndarray]) -> float:
    """Mean square error of an element, summed over clips, which count alike."""
    return sum(float(np.mean(np.square(end - goal))) for end, goal in zip(ends, goals, strict=True))


def _apart(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray]
) -> tuple[list[list[np.ndarray | None]], list[np.ndarray]]:
    """Terms and goals without their levels, which are fitted on their own."""
    bare = [[None if term is None else term - level_of(term) for term in own] for own in terms]
    return bare, [goal - level_of(goal) for goal in goals]


def least_squares(
    terms: Sequence[Sequence[np.ndarray | None]], goals: Sequence[np.ndarray]
) -> tuple[Row, list[Row]]:
    """A factor per term, so that their sum is nearest to the goals; a term that is None gets 0.

    terms: of each clip, arrays shaped like its goal. Clips count alike, whatever their length. Beside it, for
    each clip the row that the others alone give.
    """
    there = [place for place in range(TERMS) if terms[0][place] is not None]
    products = [
        inner_products([*(own[place] for place in there), goal])
        for own, goal in zip(terms, goals, strict=True)
    ]
    return _rows(products, there, TERMS)


def _rows(products: Sequence[np.ndarray], places: Sequence[int], length: int) -> tuple[Row, list[Row]]:
    """Fitted to all clips, and for each clip to the others; a clip that is alone has its own.

    products: of each clip, of the basis and then the goal; places: of the basis in a row of that length.
    """
    total = sum(products)

    def row(sums: np.ndarray) -> Row:
        factors = np.zeros(length)
        factors[places], _ = fit(sums, len(places), range(len(places)))
        return tuple(map(float, factors))

    return row(total), [row(total - own if len(products) > 1 else own) for own in products]
