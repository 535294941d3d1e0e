"""Find the fastest recipe that keeps to a goal: a planner proposes, real runs on the tuning clips decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bench.quality_goal import Goal, Judged
from engines.errors import Exit, VivaceError
from engines.files import append_line
from optimize.steps.jump_tables import jump_errors, shallow_errors, weigh_kept
from optimize.steps.planner import Costs, Plan, Tables, front, seconds_of
from optimize.steps.tuning_runner import TuningRunner
from pipeline.recipe import Recipe, parse_recipe
from pipeline.step_plan import StepPlan

Say = Callable[[str], None]
Ran = tuple[Recipe, list[Judged], str]  # the fitted recipe, its judged videos, why it could not be run
# Weights of the error of a reused difference, see jump_tables.weigh_kept. With 8, predicted errors of twelve
# plans correlated 0.95 with the PSNR of real runs, with 0 only 0.55; the others give alternative fronts.
KEPT = (8.0, 2.0, 32.0)
PATIENCE = 3  # failed plans of a front before the next front


class TuningError(VivaceError):
    """Raised when no recipe keeps to the goal; the text says why the last one failed."""

    exit = Exit.SIMILARITY


@dataclass(frozen=True)
class Trial:
    """One real run. recipe: the fitted one. reasons: why videos fail the goal; empty if none does.

    seconds: predicted, of the denoiser on all tuning videos.
    """

    recipe: Recipe
    seconds: float
    videos: list[Judged]
    accepted: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Tuned:
    """A tuner's result: the fastest accepted trial, all trials in order, and the number of real runs."""

    best: Trial
    trials: list[Trial]
    runs: int


class Tuner:
    """A search for the fastest recipe. record: a file for this goal, with a line for each trial and timing.

    Neither is run or timed again, so the same search finds the same recipe, however busy the machine is. The
    first video that fails ends a trial.
    """

    def __init__(self, runner: TuningRunner, goal: Goal, record: Path, say: Say) -> None:
        self.goal, self.trials, self.runs = goal, [], 0
        self._runner, self._record, self._say = runner, record, say
        self._known, self._timed = _read_record(record)

    def tune(self, recipes: Sequence[Recipe], overlaps: Sequence[int] = ()) -> Tuned:
        """Search plans for each of the recipes' engines and precisions, then smaller overlaps.

        The fastest engine comes first. Step plans of the recipes, for example from an earlier search, are
        tried before others, so that slower plans need not be run. The best one is run once more at the end
        with its corrections as they are, as users will run it. TuningError: no recipe is accepted, or passes
        this last run.
        """
        grams, scheduler = self._runner.capture(self._say), self._runner.scheduler
        full, cheap = jump_errors(grams, scheduler)
        errors = {"C": cheap, **({"H": shallow_errors(grams, scheduler)} if grams[0].shallow else {})}
        gains = getattr(scheduler, "gains", np.ones(scheduler.steps + 1))
        tables = [
            Tables(full, {name: weigh_kept(full, each, weight) for name, each in errors.items()},
                   gains) for weight in KEPT
        ]  # fmt: skip
        earlier = _by_engine(recipes)
        costs = {recipe: self._costs(recipe) for recipe in earlier}
        for recipe in sorted(earlier, key=lambda each: costs[each].full):
            windows = self._runner.windows(recipe)
            for plan in earlier[recipe]:
                self._try_earlier(recipe, plan, costs[recipe])
            fronts = [[replace(plan, seconds=plan.seconds * windows) for plan in front(each, costs[recipe])]
                      for each in tables]  # fmt: skip
            first = self._faster(recipe, fronts[0])
            self._say(f"{recipe.name}: {len(first)} plans would be the fastest yet")
            self._bisect(recipe, first)
            for plans in fronts:
                self._try_faster(recipe, plans)
        for overlap in sorted(overlaps) if self.best else ():
            self._try_overlap(overlap)
        return Tuned(self._confirmed(), self.trials, self.runs)

    def _costs(self, recipe: Recipe) -> Costs:
        """Return the costs of a recipe's engines from the record, or measure and record them."""
        asked = recipe.to_toml()
        if asked not in self._timed:
            self._timed[asked] = self._runner.costs(recipe, self._say)
            self._write({"timed": asked, "costs": asdict(self._timed[asked])})
        return self._timed[asked]

    @property
    def best(self) -> Trial | None:
        """The fastest accepted trial so far."""
        accepted = [trial for trial in self.trials if trial.accepted]
        return min(accepted, key=lambda trial: trial.seconds, default=None)

    def _faster(self, recipe: Recipe, plans: Sequence[Plan]) -> list[Plan]:
        """Return the plans that would be the fastest accepted one, and were not tried with this recipe."""
        tried = {each.recipe.steps.actions for each in self.trials if each.recipe.name == recipe.name}
        limit = self.best.seconds if self.best else np.inf
        return [plan for plan in plans if plan.seconds < limit and plan.actions not in tried]

    def _bisect(self, recipe: Recipe, plans: Sequence[Plan]) -> None:
        """Find the first plan of a front that is accepted, by bisection: as if all after it were too."""
        low, high = -1, len(plans)  # plans[low] failed, plans[high] was accepted or not tried
        while high - low > 1:
            middle = (low + high) // 2
            if self._try(recipe, plans[middle]).accepted:
                high = middle
            else:
                low = middle

    def _try_faster(self, recipe: Recipe, plans: Sequence[Plan]) -> None:
        """Try the next faster plans of a front: predictions may rank similar plans in the wrong order."""
        failures = 0
        while failures < PATIENCE and (faster := self._faster(recipe, plans)):
            failures += not self._try(recipe, faster[-1]).accepted

    def _try(self, recipe: Recipe, plan: Plan) -> Trial:
        return self.trial(replace(recipe, steps=StepPlan(plan.actions)), plan.seconds)

    def _try_earlier(self, recipe: Recipe, steps: StepPlan, costs: Costs) -> None:
        """Try a given plan; its corrections and guard are fitted again, as videos or weights may differ."""
        known = replace(recipe, steps=StepPlan(steps.actions, overlaps=steps.overlaps))
        self.trial(known, seconds_of(steps.actions, costs) * self._runner.windows(known))

    def _try_overlap(self, overlap: int) -> None:
        """Find by bisection up to which evaluated step windows of the best recipe may overlap that little."""
        best = self.best
        actions = best.recipe.steps.actions
        low, high = len(best.recipe.steps.overlaps), len(best.recipe.steps.evaluated) + 1
        while high - low > 1:
            middle = (low + high) // 2
            fewer = (*best.recipe.steps.overlaps, *[overlap] * middle)[:middle]
            recipe = replace(best.recipe, steps=StepPlan(actions, overlaps=fewer))
            share = self._runner.windows(recipe) / self._runner.windows(best.recipe)
            if share < 1 and self.trial(recipe, best.seconds * share).accepted:
                low = middle
            else:
                high = middle

    def _confirmed(self) -> Trial:
        """Return the fastest accepted trial whose recipe also passes with its corrections as they are."""
        while best := self.best:
            trial = self.trial(best.recipe, best.seconds)
            if not trial.reasons:
                return best
            failed = replace(best, accepted=False, reasons=trial.reasons)
            self.trials = [failed if each is best else each for each in self.trials]
        reasons = self.trials[-1].reasons
        raise TuningError("\n".join(["no recipe keeps to the goal; the last one failed by:", *reasons]))

    def trial(self, recipe: Recipe, seconds: float) -> Trial:
        """Run a recipe on the tuning clips, or read its result from the record. seconds: predicted."""
        asked = recipe.to_toml()
        if asked not in self._known:
            self._known[asked] = fitted, videos, failed = self._run(recipe)
            self.runs += 1
            line = {"asked": asked, "name": fitted.name, "recipe": fitted.to_toml(), "failed": failed}
            self._write({**line, "videos": [asdict(video) for video in videos]})
        fitted, videos, failed = self._known[asked]
        reasons = (failed,) if failed else tuple(self.goal.why_not(videos))
        accepted = not failed and self.goal.accepts(videos)
        self.trials.append(Trial(fitted, seconds, videos, accepted, reasons))
        self._say(_line(self.trials[-1], len(self.trials)))
        return self.trials[-1]

    def _run(self, recipe: Recipe) -> Ran:
        """Run a recipe. Where its numbers are not finite, as half precisions may overflow, it just fails."""
        try:
            return *self._runner.run(recipe, self._say, self._fails), ""
        except FloatingPointError as error:
            return recipe, [], str(error)

    def _fails(self, videos: Sequence[Judged]) -> bool:
        return bool(self.goal.why_not(videos))

    def _write(self, line: dict[str, object]) -> None:
        append_line(self._record, json.dumps(line, ensure_ascii=False))


def _by_engine(recipes: Sequence[Recipe]) -> dict[Recipe, list[StepPlan]]:
    """Return the recipes without their plans, one of those that differ only in name, with their plans."""
    found: dict[str, tuple[Recipe, list[StepPlan]]] = {}
    for recipe in recipes:
        bare = replace(recipe, steps=None)
        _, plans = found.setdefault(json.dumps(bare.settings(), sort_keys=True), (bare, []))
        plans += [recipe.steps] if recipe.steps else []
    return dict(found.values())


def _line(trial: Trial, number: int) -> str:
    """Return a line for the user on a trial."""
    least = min((v.similarity for v in trial.videos if v.similarity is not None), default=float("nan"))
    psnr = min((video.psnr for video in trial.videos), default=float("nan"))
    steps = trial.recipe.steps
    overlaps = f", overlaps {', '.join(map(str, steps.overlaps))}" if steps.overlaps else ""
    result = "accepted" if trial.accepted else [*trial.reasons, "passes, but too narrowly"][0]
    return (f"trial {number}: {trial.recipe.name} {steps.actions}{overlaps}: {trial.seconds:.2f} s, "
            f"similarity {least:.4f}, PSNR {psnr:.1f} dB: {result}")  # fmt: skip


def _read_record(path: Path) -> tuple[dict[str, Ran], dict[str, Costs]]:
    """Read finished runs and engines' costs by their recipes' TOML; skip a line that was cut off."""
    known, timed = {}, {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                line = json.loads(text)
                if "timed" in line:
                    timed[line["timed"]] = Costs(**line["costs"])
                    continue
                videos = [Judged(**each) for each in line["videos"]]
                recipe = parse_recipe(line["recipe"], line["name"])
                known[line["asked"]] = recipe, videos, line.get("failed", "")
            except (ValueError, LookupError, TypeError):
                continue
    return known, timed
