"""Fit a step plan's corrections to base runs, on the latents that the plan itself produces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from generators.samplers import Scheduler
from optimize.steps.trajectory import inner_products, least_squares
from pipeline.guard import change
from pipeline.sampler import ClipDenoiser, denoise_loop
from pipeline.sampler_state import channels_beside, combine, level_of
from pipeline.step_plan import TERMS, StepPlan

Row = tuple[float, ...]
Terms = Sequence[np.ndarray | None]
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the least-squares correction that are tried, beside 0
# Of the plain plan's square error, what a left-out clip may keep: one decibel less. On a trained network
# one of DDIM's plans gained 0.3 dB or more on three left-out videos, and lost 1.6 on one of four fresh ones.
SURE = 10**-0.1


class BaseRun(Protocol):
    """A clip whose base run was captured. denoise: its denoiser."""

    denoise: ClipDenoiser

    def base(self, step: int) -> np.ndarray:
        """Return the base run's latents before that step; step 0 gives the noise, step N the result."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A fitted plan, and each clip's results with rows that were fitted to the other clips.

    ends: the final latents of each clip. changes: for each clip and evaluated step, the change of the
    prediction since the evaluated step before, see pipeline.guard.change.
    """

    plan: StepPlan
    ends: list[np.ndarray]
    changes: list[list[float]]


def fit_plan(
    plan: StepPlan,
    clips: Sequence[BaseRun],
    scheduler: Scheduler,
    tick: Callable[[], None] = lambda: None,
    frame_axis: int = 2,
) -> Fitted:
    """Return the plan with fitted corrections, if they bring every clip at least as near to its base run.

    All clips run side by side, once by the plain plan and once corrected. Each clip is corrected by rows that
    were fitted to the others (leave one out), as a new clip will be; its own rows would make it look better.
    tick: called after each evaluated step of each clip.
    """
    bare = StepPlan(plan.actions, overlaps=plan.overlaps)
    plain = _run_side_by_side(bare, clips, scheduler, tick, frame_axis, False)
    if not bare.cheaper:
        return plain
    corrected = _run_side_by_side(bare, clips, scheduler, tick, frame_axis, True)
    goals = [clip.base(len(plan.actions)) for clip in clips]
    both = [_squared_errors(each.ends, goals) for each in (corrected, plain)]
    return corrected if all(one <= SURE * other for one, other in zip(*both, strict=True)) else plain


def _run_side_by_side(
    plan: StepPlan,
    clips: Sequence[BaseRun],
    scheduler: Scheduler,
    tick: Callable[[], None],
    frame_axis: int,
    correct: bool,
) -> Fitted:
    """Run a plan on all clips in step, fitting the rows of each jump as it comes if correct is true."""
    latents = clips[0].base(0)
    channel_axis = channels_beside(frame_axis, latents.ndim)
    nothing = (0.0,) * TERMS, (0.0,) * (TERMS + latents.shape[channel_axis])
    rows, changes, goals = [], [[] for _ in clips], dict(plan.jumps)
    loops = [denoise_loop(clip.denoise, scheduler, clip.base(0), plan, frame_axis) for clip in clips]
    for states in zip(*loops, strict=True):
        step = states[0].step
        if step not in goals:
            continue
        for state, seen in zip(states, changes, strict=True):
            before = state.previous
            seen.append(0.0 if before is None else change(state.conditional, before, frame_axis))
            tick()
        rows.append(nothing)
        if correct and plan.skips(step, goals[step]):
            missed = [clip.base(goals[step]) - each.latents for clip, each in zip(clips, states, strict=True)]
            *rows[-1:], added = fit_jump([state.terms for state in states], missed, channel_axis)
            for state, each in zip(states, added, strict=True):
                state.latents = state.latents + each
    corrections, levels = zip(*rows, strict=True) if correct else ((), ())
    fitted = replace(plan, corrections=corrections, level_corrections=levels)
    return Fitted(fitted, [state.latents for state in states], changes)


def fit_jump(
    terms: Sequence[Terms], missed: Sequence[np.ndarray], channel_axis: int
) -> tuple[tuple[Row, Row], list[np.ndarray]]:
    """Fit one jump's rows: return (corrections, level_corrections), and the correction added to each clip.

    terms: of each clip, see StepPlan. missed: for each clip, the base run's latents minus the plain jump's.
    The correction of a clip uses rows fitted to the others. Levels have a row of their own where that brings
    left-out clips nearer; otherwise they are corrected by the row of corrections.
    """
    bare = [[None if term is None else term - level_of(term) for term in own] for own in terms]
    row, of_others = shrunk_rows(
        [_products(own, each - level_of(each)) for own, each in zip(bare, missed, strict=True)], TERMS
    )
    levels = [_level_basis(own, each, channel_axis) for own, each in zip(terms, missed, strict=True)]
    products = [inner_products(each) for each in levels]
    length = len(products[0]) - 1
    as_rest = [each + (0.0,) * (length - TERMS) for each in of_others]
    level, levels_of_others = shrunk_rows(products, length)
    if _relative_error(products, levels_of_others) >= _relative_error(products, as_rest):
        level, levels_of_others = row + (0.0,) * (length - TERMS), as_rest
    added = [
        combine(own_row, own, own_level, channel_axis)
        for own_row, own, own_level in zip(of_others, terms, levels_of_others, strict=True)
    ]
    return (row, level), added


def shrunk_rows(products: Sequence[np.ndarray], length: int) -> tuple[Row, list[Row]]:
    """Return the least-squares row times the share that is best for left-out clips, and each clip's own row.

    A clip's own row is fitted to the other clips, times the same share. products: of each clip, the inner
    products of the terms and, last, the target; a term that is 0 gets factor 0. The share is the one of
    SHARES with the least sum of the clips' relative errors, by their own rows, among those that increase no
    clip's error; 0 if there is none, or only one clip, which cannot show what others need.
    """
    total = sum(products)
    full = _row(total, length)
    others = [_row(total - own, length) for own in products] if len(products) > 1 else [0 * full]
    best, least = 0.0, float(len(products))
    for share in SHARES:
        left = [error(own, share * row) / own[-1, -1] if own[-1, -1] > 0 else np.inf
                for own, row in zip(products, others, strict=True)]  # fmt: skip
        if max(left) <= 1 and sum(left) < least:
            best, least = share, sum(left)
    return tuple(map(float, best * full)), [tuple(map(float, best * row)) for row in others]


def _row(products: np.ndarray, length: int) -> np.ndarray:
    """Return the least-squares row of the first `length` arrays for the one after them."""
    return least_squares(products[:length, :length], products[:length, length])


def error(products: np.ndarray, row: Sequence[float]) -> float:
    """Return the mean square of the last array minus the row's sum of the others, from their products."""
    weights = np.append(-np.asarray(row), 1.0)
    return float(weights @ products @ weights)


def _relative_error(products: Sequence[np.ndarray], rows: Sequence[Row]) -> float:
    """Return the sum over clips of the error by their rows, relative to the target's mean square."""
    return sum(error(own, row) / max(own[-1, -1], 1e-30) for own, row in zip(products, rows, strict=True))


def _products(terms: Terms, missed: np.ndarray) -> np.ndarray:
    """Return the inner products of the terms (None counts as 0) and, last, of what is missed."""
    return inner_products([*(np.zeros_like(missed) if term is None else term for term in terms), missed])


def _level_basis(terms: Terms, missed: np.ndarray, channel_axis: int) -> list[np.ndarray]:
    """Return the levels of the terms, an indicator of each channel, and the level that is missed."""
    level = level_of(missed)
    channels = level.shape[channel_axis]
    numbers = np.arange(channels).reshape([-1 if a == channel_axis else 1 for a in range(level.ndim)])
    ones = [np.broadcast_to(numbers == channel, level.shape) for channel in range(channels)]
    return [*(np.zeros_like(level) if term is None else level_of(term) for term in terms), *ones, level]


def _squared_errors(ends: Sequence[np.ndarray], goals: Sequence[np.ndarray]) -> list[float]:
    """Return the mean square error of each clip's latents."""
    return [float(np.mean(np.square(end - goal))) for end, goal in zip(ends, goals, strict=True)]
