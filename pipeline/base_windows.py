"""The windows of the base model's plan, and what a guard needs to know of a clip that is cut into them."""

from __future__ import annotations

import numpy as np

from generators.contract import Generator
from pipeline.blended_denoiser import StepWindows, part_of, step_windows
from pipeline.guard_watch import ClipForm, GuardWatch
from pipeline.step_plan import StepPlan, base_plan


def watch_of(generator: Generator, plan: StepPlan | None, frames: int | None = None) -> GuardWatch | None:
    """Return what watches a clip of that many frames for the plan's guard, if it has one.

    frames: None for one of the windows that continue one another.
    """
    if not (plan and plan.guard):
        return None
    rule, given = generator.windows, (generator.frame_axis, generator.per_frame)
    if frames is None:
        form = ClipForm(*given, *[rule.length] * 3, tied=True)
        return GuardWatch(plan.guard, form)
    own, sampled = rule.latent_frames(frames), len(rule.condition_indices(frames))
    (_, windows), *others = base_windows(generator, frames)
    tied = bool(others) or len(part_of(windows, 0, 1)[0]) == sampled
    places = _places(generator, windows, frames, own) if hasattr(rule, "seen") else None
    return GuardWatch(plan.guard, ClipForm(*given, own, sampled, rule.length, tied, places))


def _places(generator: Generator, windows: list[np.ndarray], frames: int, own: int) -> np.ndarray:
    """Return of which latent frame each of a clip's conditions are, `own` for those of none or repeated."""
    rule = generator.windows
    places = np.full(rule.conditions(frames), own)
    for window in windows:
        places[rule.seen(window)] = window
    repeated = np.ones(len(places), bool)
    repeated[np.unique(places, return_index=True)[1]] = False
    places[repeated] = own
    return places


def base_windows(generator: Generator, frames: int) -> list[StepWindows]:
    """Return the windows of a clip by the base model's plan; of each step, if they differ."""
    made = step_windows(generator, base_plan(generator), frames)
    return [*{id(each): each for each in made}.values()]


def reach_of(generator: Generator, frames: int) -> np.ndarray:
    """Return for each window of the base model's plan its first and last own frame, and first condition."""
    rule, found = generator.windows, []
    for _, indices in base_windows(generator, frames):
        for window in indices:
            own = window[window < rule.latent_frames(frames)]
            if len(own):  # else it has only frames that fill it
                found.append((own.min(), own.max(), rule.seen(window).min() if hasattr(rule, "seen") else 0))
    return np.array(found)
