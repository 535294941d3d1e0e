"""Race the tuner against random search and Optuna's TPE, which propose plans and have as many real runs.

All run the same engines, fit jumps to their plans and accept by the same margin; they differ only in which
plan is tried next. Optuna: Akiba et al., 2019; TPE: Bergstra et al., 2011.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from bench.score import LEVELS
from engines.cli import SAMPLE, common_arguments, ending, new_parser, run, say
from engines.errors import Exit, UsageError
from engines.files import atomic_write
from optimize.steps.tune import TuningJob, record_of, tuning_runner_of
from optimize.steps.tuner import Trial, Tuner
from pipeline.recipe import Recipe, load_recipe
from pipeline.step_plan import StepPlan

ROOT = Path(__file__).resolve().parents[1]
SMOOTH = 3.0  # a power that places steps: 1 spreads them evenly, more crowds them at the end


class Proposer(Protocol):
    """A search that proposes plans and is told how each did."""

    def ask(self) -> str:
        """Return the actions of the next plan."""
        ...

    def tell(self, value: float) -> None:
        """Take the worth() of the plan asked for last; less is better."""
        ...


class RandomSearch:
    """A random search: the count of evaluated steps is log-uniform, their places anywhere, F or C."""

    def __init__(self, steps: int, seed: int) -> None:
        self._steps, self._rng = steps, np.random.default_rng(seed)

    def ask(self) -> str:
        """Return the actions of the next plan."""
        count = round(math.exp(self._rng.uniform(0, math.log(self._steps))))
        places = 1 + self._rng.permutation(self._steps - 1)[: count - 1]
        letters = ["F", *"S" * (self._steps - 1)]
        for place in places:
            letters[place] = str(self._rng.choice(["F", "C"]))
        return "".join(letters)

    def tell(self, value: float) -> None:
        """Ignore the worth: this search does not learn."""


class LettersSearch:
    """Optuna's TPE over a letter for each step: all plans, nothing known of them."""

    def __init__(self, steps: int, seed: int) -> None:
        self._steps, self._study = steps, _study(seed)

    def ask(self) -> str:
        """Return the actions of the next plan."""
        self._trial = self._study.ask()
        letters = (self._trial.suggest_categorical(f"step {step}", "FCS") for step in range(1, self._steps))
        return "F" + "".join(letters)

    def tell(self, value: float) -> None:
        """Take the worth of the plan asked for last."""
        self._study.tell(self._trial, value)


class ShapeSearch:
    """Optuna's TPE over three numbers, as somebody who knows sampling would set it up.

    The numbers say how many steps are evaluated, how much they crowd at the end, and every how many is an F.
    """

    def __init__(self, steps: int, seed: int) -> None:
        self._steps, self._study = steps, _study(seed)

    def ask(self) -> str:
        """Return the actions of the next plan."""
        trial = self._trial = self._study.ask()
        count = trial.suggest_int("evaluated", 1, self._steps, log=True)
        power = trial.suggest_float("power", 1 / SMOOTH, SMOOTH, log=True)
        every = trial.suggest_int("every", 1, 8, log=True)
        return shaped(self._steps, count, power, every)

    def tell(self, value: float) -> None:
        """Take the worth of the plan asked for last."""
        self._study.tell(self._trial, value)


PROPOSERS: dict[str, Callable[[int, int], Proposer]] = {
    "random search": RandomSearch,
    "TPE over letters": LettersSearch,
    "TPE over three numbers": ShapeSearch,
}


def shaped(steps: int, count: int, power: float, every: int) -> str:
    """Return actions with that many evaluated steps or fewer, at (i / count) ** (1 / power) of all."""
    letters = ["S"] * steps
    for i in reversed(range(count)):
        place = min(int(steps * (i / count) ** (1 / power)), steps - 1)
        letters[place] = "F" if i % every == 0 else "C"
    return "".join(letters)


def worth(trial: Trial, steps: int) -> float:
    """Return evaluated branches of an accepted trial; for others more than any plan has, by how bad."""
    if trial.accepted:
        return trial.recipe.steps.branches
    least = min(-1.0 if video.similarity is None else video.similarity for video in trial.videos)
    return 2 * steps + 2 - least


def race(tuner: Tuner, recipe: Recipe, names: Sequence[str], seed: int, steps: int) -> dict[str, list[Trial]]:
    """Run trials by search: the planner's own, then as many of each of the named ones.

    tuner: a new one; its record keeps all runs, so that the same race goes on where it was interrupted.
    TuningError: the planner finds nothing.
    """
    tuned = tuner.tune([recipe])
    found = {"planner": list(tuned.trials)}
    each_branch = tuned.best.seconds / tuned.best.recipe.steps.branches
    for name in names:
        proposer = PROPOSERS[name](steps, seed)
        found[name] = []
        for _ in found["planner"]:
            plan = StepPlan(proposer.ask())
            trial = tuner.trial(replace(recipe, steps=plan), plan.branches * each_branch)
            proposer.tell(worth(trial, steps))
            found[name].append(trial)
    return found


def best_so_far(trials: Sequence[Trial]) -> list[float]:
    """Return, after each trial, the fewest branches of an accepted one; inf before the first."""
    branches = [each.recipe.steps.branches if each.accepted else math.inf for each in trials]
    return np.minimum.accumulate(branches).tolist()


def described(races: Sequence[dict[str, list[Trial]]]) -> dict[str, list[list[float | None]]]:
    """Return best_so_far of each race by search, None where nothing is accepted yet."""
    return {
        name: [[best if math.isfinite(best) else None for best in best_so_far(race[name])] for race in races]
        for name in races[0]
    }


def draw_race(races: Sequence[dict[str, list[Trial]]], path: Path) -> None:
    """Write a PNG: the best accepted plan by the number of real runs, a line for each race of each search."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    colours = dict(zip(("planner", *PROPOSERS), ("#1a7f37", "#6e7781", "#bf8700", "#0969da"), strict=True))
    for race in races:
        for name, trials in race.items():
            runs = range(1, len(trials) + 1)
            panel.step(runs, best_so_far(trials), where="post", color=colours[name], label=name)
    panel.set(xlabel="real runs on all tuning videos", yscale="log",
              ylabel="evaluated branches a window, best accepted plan")  # fmt: skip
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
        axis(ScalarFormatter())
    panel.grid(alpha=0.3, which="both")
    handles, labels = panel.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    panel.legend(known.values(), known.keys())
    figure.savefig(path, dpi=120)


def _study(seed: int):
    """Make a study of Optuna's; UsageError if it is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("Optuna is not installed; run: pip install -r lab/requirements.txt")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))


def main() -> Exit:
    """Parse, call, print."""
    words = "interrupted; the same search goes on from here"
    return ending("lab.plan_search", lambda: search(parse()), words)


def search(args: argparse.Namespace) -> Exit:
    """Search plans in several ways with as many runs each; searches.json and a picture go to --out."""
    recipe = load_recipe(args.start)
    job = TuningJob(args.data, args.generator, args.device, lossless=args.lossless)
    with closing(tuning_runner_of(job, args.out)) as workbench:
        goal, steps = LEVELS[args.level], workbench.generator.scheduler.steps
        record = record_of(workbench, goal, args.out)
        races = [
            race(Tuner(workbench, goal, record, say), recipe, list(PROPOSERS), seed, steps)
            for seed in range(args.seeds)
        ]
    draw_race(races, args.out / "searches.png")
    found = {"level": args.level, "data": args.data.name, "searches": described(races)}
    with atomic_write(args.out / "searches.json") as draft:
        draft.write_text(json.dumps(found) + "\n", encoding="utf-8")
    for name in races[0]:
        best = ", ".join(f"{best_so_far(each[name])[-1]:g}" for each in races)
        print(f"{name}: {best} evaluated branches a window, in {len(races[0][name])} runs")
    return Exit.OK


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.plan_search")
    common_arguments(
        parser, "generator", "device", "lossless",
        data={"default": SAMPLE},
        out={"required": True, "help": "folder"},
    )  # fmt: skip
    parser.add_argument("--level", choices=list(LEVELS), default="fast", help="what to keep to (fast)")
    parser.add_argument(
        "--start", type=Path, default=ROOT / "optimize" / "recipes" / "cpu.toml",
        help="recipe whose engines run (cpu.toml)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, help="races, each with a seed of its own (1)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
