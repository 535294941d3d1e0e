"""Compute the error of every jump of every plan from inner products of base runs: the planner's tables.

A jump is the one of pipeline.step_plan: the solver's leap by the guided prediction, and where something is
left out a correction, scaled by the share that is best for left-out videos (fit.py). A solver's leap is
linear in its inputs, so its results for unit vectors are its factors. For a jump from the base run's own
latents these errors are exact; from a plan's own latents they are about as large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.samplers import Scheduler, leap
from optimize.steps.fit import SHARES
from optimize.steps.trajectory import Gram, least_squares

BASIS = [0, 1, 2, 4]  # positions in Gram.rows of a correction's terms
KNOWN = 6  # length of Gram.rows
LEAST = 1e-30  # least mean square that is divided by


def jump_errors(grams: Sequence[Gram], scheduler: Scheduler) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean square error of every jump from a full step, and from a conditional one.

    grams: one for each video; videos count alike, however long they are.
    full (N, N, N + 1): [i, k, j] from step i to the latents of step j, where k is the step evaluated before
    i; the first step, which has none before it, is at [0, 0, j]. conditional (N, N, N, N + 1): [i, k, m, j],
    where m is the last full step. Impossible entries (k >= i, m > k, j <= i) are inf. A full step to the very
    next one is the base model's own; its error is 0 if the step before it was the one right before.
    """
    gram, products = _stacked(grams)
    steps = gram.steps
    full = np.full((steps, steps, steps + 1), np.inf)
    conditional = np.full((steps, steps, steps, steps + 1), np.inf)
    for i in range(steps):
        leaps = _leaps(scheduler, i)
        k = np.arange(max(i, 1))
        rows = np.array([gram.rows(i, i, before) for before in k])
        full[i, k, i + 1 :] = _errors(products, rows, leaps, i, True)
        if i == 0:
            continue
        k, m = np.tril_indices(i)
        rows = np.array([gram.rows(i, *pair) for pair in zip(m, k, strict=True)])
        conditional[i, k, m, i + 1 :] = _errors(products, rows, leaps[k], i, False)
    return full, conditional


def shallow_errors(grams: Sequence[Gram], scheduler: Scheduler) -> np.ndarray:
    """Return the mean square error of every jump from a shallow step: (N, N, N, N + 1), [i, k, m, j].

    Indices are those of jump_errors' conditional; m is the full step whose features are used, and k >= m,
    evaluated before i, counts as a full step. Entries that were not measured are inf.
    """
    gram, products = _stacked(grams)
    steps = gram.steps
    errors = np.full((steps, steps, steps, steps + 1), np.inf)
    for number, (i, m) in enumerate(gram.shallow):
        k = np.arange(m, i)
        rows = np.array([gram.shallow_rows(number, before) for before in k])
        errors[i, k, m, i + 1 :] = _errors(products, rows, _leaps(scheduler, i)[k], i, False)
    return errors


def weigh_kept(full: np.ndarray, conditional: np.ndarray, weight: float) -> np.ndarray:
    """Return the conditional table with the error beyond that of a full step counted 1 + weight times.

    This error comes from reusing ("keeping") the last difference of the branches, or for a table of shallow
    steps the last features. It has the same direction at jump after jump, so it adds up as a sum, not as
    squares.
    """
    added = np.zeros_like(conditional)
    np.subtract(conditional, full[:, :, None], out=added, where=np.isfinite(conditional))
    return conditional + weight * np.maximum(added, 0.0)


def _stacked(grams: Sequence[Gram]) -> tuple[Gram, np.ndarray]:
    """Return the first Gram, and the products of all (V, R, R). ValueError: their rows differ."""
    first = grams[0]
    for other in grams:
        if other.steps != first.steps or other.shallow != first.shallow:
            raise ValueError(
                f"videos of {first.steps} and {other.steps} steps, with {len(first.shallow)} and "
                f"{len(other.shallow)} shallow ones; capture them alike"
            )
    return first, np.stack([gram.products for gram in grams])


def _leaps(scheduler: Scheduler, step: int) -> np.ndarray:
    """Return (K, N - step, 6): factors of Gram.rows in a leap from step, by the step before and the goal."""
    latents, guided, latents_before, guided_before = np.eye(4, dtype=np.float32).reshape(4, 1, 4, 1, 1, 1)
    found = np.zeros((max(step, 1), scheduler.steps - step, KNOWN))
    for before, goal in np.ndindex(found.shape[:2]):
        solver = scheduler.solver()
        if step:
            leap(solver, latents_before, guided_before, before, step)
        x, g, x_before, g_before = leap(solver, latents, guided, step, step + 1 + goal).ravel()
        found[before, goal] = x, g, g, x_before, g_before, g_before
    return found


def _errors(products: np.ndarray, rows: np.ndarray, leaps: np.ndarray, step: int, full: bool) -> np.ndarray:
    """Return the errors (n, t) of jumps from step to each of t later ones, for n histories.

    products: (V, R, R) of the videos. rows: (n, 6), Gram.rows of each history. leaps: (n, t, 6), their
    factors. full: the step is a full one, so that a jump to the next step leaves nothing out.
    """
    n, goals, _ = leaps.shape
    missed = np.zeros((n, goals, products.shape[1]))
    np.add.at(missed, (np.arange(n)[:, None, None], np.arange(goals)[None, :, None], rows[:, None]), -leaps)
    missed[:, np.arange(goals), step + 1 + np.arange(goals)] += 1  # the latents there
    seen = np.stack([missed @ own for own in products])  # (V, n, t, R)
    plain = np.maximum(np.sum(seen * missed, -1), 0.0)
    basis = rows[:, BASIS]
    normal = products[:, basis[:, :, None], basis[:, None, :]][:, :, None]  # (V, n, 1, b, b)
    right = np.take_along_axis(seen, np.broadcast_to(basis[:, None], (*seen.shape[:3], len(BASIS))), 3)
    best = plain.mean(0)
    if len(products) > 1:
        weights = least_squares(normal.sum(0) - normal, right.sum(0) - right)  # (V, n, t, b), by the others
        gained = np.sum(weights * right, -1)
        power = np.sum((weights[..., None, :] @ normal)[..., 0, :] * weights, -1)
        least = np.full(best.shape, float(len(products)))
        for share in SHARES:
            left = np.maximum(plain - 2 * share * gained + share**2 * power, 0.0)
            relative = left / np.maximum(plain, LEAST)
            better = (relative.max(0) <= 1) & (relative.sum(0) < least)
            best, least = np.where(better, left.mean(0), best), np.where(better, relative.sum(0), least)
    if full:
        best[:, 0] = plain.mean(0)[:, 0]
        best[-1, 0] = 0.0  # the base model's own, by its own history
    return best
