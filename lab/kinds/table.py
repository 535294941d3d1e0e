"""Measure plans of every length on models of several kinds: how near the plain and the fitted form come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.artifact import fingerprint
from engines.load import start_engines
from generators.contract import Generator
from generators.presenter.generator import Presenter
from generators.windows import OverlapWindows
from lab.kinds.free_factors import ends_by_free_factors
from lab.kinds.models import Ddim, Dpm, Karras, UniPc
from lab.kinds.predicted import predicted_error
from optimize.steps.fit import fit_plan
from optimize.steps.jump_tables import jump_errors, weigh_kept
from optimize.steps.planner import Costs, Tables, front
from optimize.steps.trajectory import Gram
from optimize.steps.tuner import KEPT
from optimize.steps.tuning_runner import TuningClip
from pipeline.batch.dataset import Request
from pipeline.recipe import Recipe
from pipeline.step_plan import StepPlan

KINDS = {"presenter": Presenter, "ddim": Ddim, "dpm": Dpm, "karras": Karras, "unipc": UniPc}
COSTS = Costs(2.0, {"C": 1.0})
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One plan of one kind; figures in dB of the latents' power to their error, least of the videos.

    gain: the least of fitted minus plain, over videos that nothing was fitted to. predicted: of the tables.
    """

    kind: str
    actions: str
    branches: int
    plain: float
    free: float
    fitted: float
    gain: float
    fresh_gain: float
    predicted: float

    def __str__(self) -> str:
        figures = (self.plain, self.free, self.fitted, self.gain, self.fresh_gain, self.predicted)
        return f"| {self.kind} | {self.actions} | {self.branches} | " + " | ".join(
            f"{each:.1f}" for each in figures
        ) + " |"  # fmt: skip


HEAD = (
    "| model | plan | branches | plain | free factors | fitted | gain, left out | gain, fresh | predicted |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def halved(kind: type[Presenter]) -> type[Presenter]:
    """The kind at half the width and height, in windows of eight frames: a sixteenth of the work."""
    return type(kind.__name__, (kind,), {"size": (64, 96), "windows": OverlapWindows(8, 2)})


def decibels(end: np.ndarray, wanted: np.ndarray) -> float:
    """Return the power of the wanted latents to that of the error, in dB."""
    return float(10 * np.log10(np.mean(wanted**2) / max(np.mean((end - wanted) ** 2), 1e-14)))


def prepared(
    generator: Generator, requests: Sequence[Request], backend: str, folder: Path, say: Say
) -> tuple[list[TuningClip], list[Gram]]:
    """Return cases whose base runs are known, by these engines; kept in the folder for the next time."""
    engines = start_engines(generator, Recipe("base", backend).choice(generator, "cpu"), say)[1]
    made = fingerprint(generator.fingerprint_files)[:8]
    cases, grams = [], []
    for request in requests:
        own = folder / f"{generator.name}-{made}-{generator.size[0]}" / request.id
        case = TuningClip(request, generator, own)
        case.prepare(generator, engines, lambda: None)
        saved = own / "products.npz"
        if not saved.is_file():
            say(f"{generator.name}: base run of {request.id}")
            case.capture(0).save(saved)
        cases.append(case)
        grams.append(Gram.load(saved))
    return cases, grams


def plans_of(tables: Tables, count: int) -> list[str]:
    """Return plans along the front, and of simple patterns: many short jumps, or few long ones."""
    found = [plan.actions for plan in front(tables, COSTS)]
    places = np.unique(np.linspace(0, len(found) - 2, count).astype(int))
    steps = tables.steps
    patterns = ["FS" + "F" * steps, "FS" * steps, "FSS" * steps, "FCS" * steps, "FSSSS" * steps]
    return [*(found[place] for place in places), *(pattern[:steps] for pattern in patterns)]


def rows_of(
    name: str, cases: Sequence[TuningClip], grams: Sequence[Gram], tuning: int, count: int
) -> Iterator[Row]:
    """Yield a row for each plan; the first `tuning` cases are fitted to, the others are fresh."""
    generator = cases[0].generator
    scheduler, axis, steps = generator.scheduler, generator.frame_axis, generator.scheduler.steps
    full, cheap = jump_errors(grams[:tuning], scheduler)
    gains = getattr(scheduler, "gains", np.ones(steps + 1))
    tables = Tables(full, {"C": weigh_kept(full, cheap, KEPT[0])}, gains)
    size = np.mean([np.mean(case.base(steps) ** 2) for case in cases[:tuning]])
    for actions in plans_of(tables, count):
        plan = StepPlan(actions)
        found = fit_plan(plan, cases[:tuning], scheduler, frame_axis=axis)
        free = ends_by_free_factors(plan, cases[:tuning], scheduler, axis)

        def reached(case: TuningClip, plan: StepPlan) -> float:
            *_, state = case.run(plan)
            return decibels(state.latents, case.base(steps))

        plain = [reached(case, plan) for case in cases]
        fresh = [reached(case, found.plan) for case in cases[tuning:]]
        ends = [[decibels(end, case.base(steps)) for end, case in zip(each, cases, strict=False)]
                for each in (free, found.ends)]  # fmt: skip
        yield Row(
            name, actions, plan.branches, min(plain[:tuning]), min(ends[0]), min(ends[1]),
            min(np.subtract(ends[1], plain[:tuning])),
            min(np.subtract(fresh, plain[tuning:]), default=float("nan")),
            10 * np.log10(size / max(predicted_error(tables, actions), 1e-14)),
        )  # fmt: skip
