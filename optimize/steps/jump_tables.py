"""What every jump of every plan misses, from inner products of base runs: the tables of the planner.

A jump is what pipeline.step_plan does: the solver's leap by the guided prediction, and where something is
left out a correction, of which as much is used as serves left-out videos (fit.py). A solver's leap is a
sum of what it is given, so what it makes of unit vectors are its factors. Where a plan has come to the base
run's latents before a jump, these are its errors to the digit; on its own latents it meets them about as
large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.samplers import Scheduler, leap
from optimize.steps.fit import SHARES
from optimize.steps.trajectory import Gram, least_squares

BASIS = [0, 1, 2, 4]  # of Gram.rows, the terms of a correction
KNOWN = 6  # of Gram.rows
LEAST = 1e-30  # of a mean square, there to divide by


def jump_errors(grams: Sequence[Gram], scheduler: Scheduler) -> tuple[np.ndarray, np.ndarray]:
    """Mean square error of an element for every jump: after a full step, and after a conditional one.

    grams: of each video, which count alike however long they are.
    full (N, N, N + 1): [i, k, j] from step i to the latents of step j, the step before i being k. The first
    step has none before it and stands at [0, 0, j]. conditional (N, N, N, N + 1): [i, k, m, j], m being the
    last full step. What cannot be (k >= i, m > k, j <= i) is inf. Full steps to the very next one are the
    base model's own, without an error where the history is its own, too.
    """
    gram, products = _together(grams)
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
    """As jump_errors' conditional, after a shallow step: (N, N, N, N + 1), [i, k, m, j]; inf if not measured.

    m is the full step whose features are taken, k >= m the one evaluated before, which counts as a full one.
    """
    gram, products = _together(grams)
    steps = gram.steps
    errors = np.full((steps, steps, steps, steps + 1), np.inf)
    for number, (i, m) in enumerate(gram.shallow):
        k = np.arange(m, i)
        rows = np.array([gram.shallow_rows(number, before) for before in k])
        errors[i, k, m, i + 1 :] = _errors(products, rows, _leaps(scheduler, i)[k], i, False)
    return errors


def weigh_kept(full: np.ndarray, conditional: np.ndarray, weight: float) -> np.ndarray:
    """The conditional table with what a kept delta adds to a full step's error counted 1 + weight times.

    So with a table of shallow steps, which have kept features. A kept delta errs in the same direction jump
    after jump, so its errors add up as a sum and not as squares.
    """
    added = np.zeros_like(conditional)
    np.subtract(conditional, full[:, :, None], out=added, where=np.isfinite(conditional))
    return conditional + weight * np.maximum(added, 0.0)


def _together(grams: Sequence[Gram]) -> tuple[Gram, np.ndarray]:
    """The first, and the products of all (V, R, R)."""
    first = grams[0]
    for other in grams:
        if other.steps != first.steps or other.shallow != first.shallow:
            raise ValueError(
                f"videos of {first.steps} and {other.steps} steps, with {len(first.shallow)} and "
                f"{len(other.shallow)} shallow ones; capture them alike"
            )
    return first, np.stack([gram.products for gram in grams])


def _leaps(scheduler: Scheduler, step: int) -> np.ndarray:
    """(K, N - step, 6) factors of Gram.rows in the leap from step, by the step before and the goal."""
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
    """Errors (n, t) of jumps from step to each later one, for n histories.

    rows: (n, 6) of Gram.rows; leaps: (n, t, 6) of its factors. full: nothing is left out to the next step.
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
