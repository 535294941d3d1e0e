"""A recipe: a TOML file with all that differs from the base model's run; the empty one is the baseline."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from engines.artifact import built_folder
from engines.errors import UsageError, unknown
from engines.load import ATTENTION, BACKENDS, DEFAULT, Choice
from engines.precision import PrecisionError, choose_precisions
from engines.toml_file import parse_toml
from generators.contract import FULL, SHALLOW, Generator, needed, offers_deep_cache
from generators.windows import overlapping
from pipeline.branches_together import TogetherDenoiser, why_not_together
from pipeline.caches.technique import TechniqueChoice, TechniqueError, load_technique, open_technique
from pipeline.guard import Guard, GuardError
from pipeline.sampler_state import channels_beside
from pipeline.step_plan import ROWS, StepPlan, StepPlanError
from pipeline.video.colours import TAGGED, Colours
from pipeline.window_denoiser import OpenDenoiser, denoiser_for

PLAIN = ("backend", "precision", "attention", "overlap", "preset", "colours", "branches", "step_graph")
SETTINGS = (*PLAIN, "steps", "guard", "technique", "about")
ABOUT = ("note",)
STEPS = tuple(field.name for field in fields(StepPlan) if field.name != "guard")
GUARD = tuple(field.name for field in fields(Guard))
APART, TOGETHER = BRANCHES = ("apart", "together")  # in calls of their own, or in one
EARLIER = ("jumps", "levels")  # fitted by an earlier version, which meant other rows
PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
)  # fmt: skip


class RecipeError(UsageError):
    """A recipe cannot be used; the text names the file, the key and what would be right."""


@dataclass(frozen=True)
class Recipe:
    """How to run a generator.

    backend: a name of engines.load.BACKENDS, or "auto". precision: as infer.py takes it, "fp16,denoise=int8";
    whether the generator has these components is known only when it runs. note: a sentence for people.
    steps: at which steps the denoiser is evaluated; None: at all, in full. overlap: frames that neighbouring
    windows share; None: the generator's own. attention: how torch computes it, see engines.load.ATTENTION.
    branches: of guidance, in which calls they are evaluated, one of BRANCHES. step_graph: whether a step that
    comes again is one CUDA graph, see engines/step_graphs.py.
    preset: x264's; None: the writer's own. colours: of the videos, see pipeline/video/colours.py; None: those
    of the base model's videos, or the writer's own. technique: of pipeline/caches, instead of steps.
    RecipeError.
    """

    name: str
    backend: str = "torch"
    precision: str = "fp32"
    note: str = ""
    steps: StepPlan | None = None
    overlap: int | None = None
    preset: str | None = None
    colours: str | None = None
    technique: TechniqueChoice | None = None
    attention: str = DEFAULT
    branches: str = APART
    step_graph: bool = False

    def __post_init__(self) -> None:
        for key in ("name", "backend", "precision", "note"):
            value = getattr(self, key)
            if not isinstance(value, str):
                raise RecipeError(f"{key}: must be text in quotes, is {value!r}")
        if self.backend not in ("auto", *BACKENDS):
            raise RecipeError(f"backend: {unknown('backend', self.backend, ('auto', *BACKENDS))}")
        if self.attention not in ATTENTION:
            raise RecipeError(f"attention: {unknown('way', str(self.attention), ATTENTION)}")
        if not isinstance(self.step_graph, bool):
            raise RecipeError(f"step_graph: must be true or false, is {self.step_graph!r}")
        if self.branches not in BRANCHES:
            raise RecipeError(f"branches: {unknown('way', str(self.branches), BRANCHES)}")
        if self.branches == TOGETHER and (self.technique or (self.steps and self.steps.deep_cache)):
            raise RecipeError("branches: with a technique or the action H each is evaluated by itself")
        if self.overlap is not None and (type(self.overlap) is not int or self.overlap < 0):
            raise RecipeError(f"overlap: must be a number of frames, 0 or more, is {self.overlap!r}")
        if self.preset is not None and self.preset not in PRESETS:
            raise RecipeError(f"preset: {unknown('preset', str(self.preset), PRESETS)}")
        if self.colours is not None:
            try:
                found = Colours.parse(str(self.colours)).check()
                if str(found) != self.colours:
                    raise ValueError(f"{self.colours!r} is not understood; is {str(found)!r} meant?")
            except ValueError as error:
                raise RecipeError(f"colours: {error}") from error
        named = [part.strip().rpartition("=")[0] for part in self.precision.split(",")]
        try:
            choose_precisions(self.precision, filter(None, named))
        except PrecisionError as error:
            raise RecipeError(f"precision: {error}") from error
        if self.technique and self.steps:
            raise RecipeError("technique: goes without [steps]: both say where the denoiser is evaluated")
        if self.technique:
            try:
                load_technique(self.technique.name).check_backend(self.backend)
            except TechniqueError as error:
                raise RecipeError(f"technique.{error}") from error

    @property
    def is_baseline(self) -> bool:
        """Whether this runs the base model as it is, however its videos are coded."""
        return self.settings().keys() <= {"colours"}

    @property
    def coded(self) -> Colours:
        """The colours that videos are written with."""
        return Colours.parse(self.colours) if self.colours else TAGGED

    @property
    def open_denoiser(self) -> OpenDenoiser:
        """What evaluates a clip's windows, of a generator that adapt() gave."""
        if self.technique and load_technique(self.technique.name).keeps:
            return open_technique
        return TogetherDenoiser if self.branches == TOGETHER else denoiser_for(self.steps)

    def settings(self) -> dict:
        """What differs from the baseline, as the file has it, without [about]."""
        plain = {field.name: field.default for field in fields(self) if field.name in PLAIN}
        found = {key: getattr(self, key) for key in plain if getattr(self, key) != plain[key]}
        if self.technique:
            return {**found, "technique": {"name": self.technique.name, **self.technique.settings}}
        if self.steps is None:
            return found
        tables = {"steps": {key: getattr(self.steps, key) for key in STEPS}}
        if self.steps.guard:
            tables["guard"] = {key: getattr(self.steps.guard, key) for key in GUARD}
        return {**found, **{n: {k: v for k, v in table.items() if v} for n, table in tables.items()}}

    def adapt(self, generator: Generator) -> Generator:
        """A copy of the generator with this recipe's windows, technique, and the components that it runs.

        RecipeError: the two do not go together. EngineError: the technique needs a calibration.
        """
        adapted, deep_cache = copy.copy(generator), self.steps is not None and self.steps.deep_cache
        if deep_cache and not offers_deep_cache(generator):
            raise RecipeError(
                f"recipe {self.name}: steps.actions: H needs the components {FULL} and {SHALLOW}, which "
                f"{generator.name} has not; its documentation says how to have them, if at all"
            )
        if offers_deep_cache(generator):
            adapted.components = needed(generator.components, deep_cache)
        try:
            if self.steps is not None:
                self.steps.check_steps(generator.scheduler.steps)
                corrects = any(map(any, self.steps.corrections))
                if corrects and getattr(generator.scheduler, "stochastic", False):
                    raise StepPlanError("corrections: were fitted to a scheduler without noise")
                noise, axis = generator.noise(generator.windows.length, 0), generator.frame_axis
                self.steps.check_channels(noise.shape[channels_beside(axis, noise.ndim)])
            if self.overlap is not None:
                adapted.windows = overlapping(generator.windows, self.overlap)
            for step in self.steps.evaluated if self.steps else ():
                self.steps.windows(step, adapted.windows)
        except StepPlanError as error:
            raise RecipeError(f"recipe {self.name}: steps.{error}") from error
        except ValueError as error:
            raise RecipeError(f"recipe {self.name}: overlap: {error}") from error
        if self.branches == TOGETHER and (why := why_not_together(adapted)):
            raise RecipeError(f"recipe {self.name}: branches: {why}; leave it out")
        if self.technique is None:
            return adapted
        try:
            return load_technique(self.technique.name).adapt(adapted, self.technique.settings)
        except TechniqueError as error:
            raise RecipeError(f"recipe {self.name}: technique.{error}") from error

    def choice(self, generator: Generator, device: str) -> Choice:
        """Say which engines run a generator by this recipe on a device. PrecisionError."""
        precisions = choose_precisions(self.precision, generator.components)
        return Choice(self.backend, precisions, device, built_folder(generator.name), self.attention)

    def to_toml(self) -> str:
        """The text of a file that load_recipe reads as this recipe."""
        about = {"note": self.note.encode("utf-8", "replace").decode()} if self.note else {}
        tables = {"steps": {}, "guard": {}, "about": about, **self.settings()}
        lines = [f"{key} = {_toml(value)}" for key, value in tables.items() if not isinstance(value, dict)]
        for name, table in tables.items():
            if isinstance(table, dict) and table:
                lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
        return "\n".join(lines).lstrip("\n") + "\n"


BASELINE = Recipe("baseline")


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file, named as the file is without .toml; RecipeError if anything in it is wrong."""
    try:
        return parse_recipe(path.read_text(encoding="utf-8-sig"), path.stem)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); give the path of a recipe") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise RecipeError(f"{path}: is not a TOML file ({error})") from error


def parse_recipe(text: str, name: str) -> Recipe:
    """The recipe that a file's text says; RecipeError, or ValueError if it is not TOML."""
    found = parse_toml(text)
    _check_keys(found, SETTINGS, "")
    _check_version(found.get("steps"))
    steps, about = _table(found, "steps", STEPS), _table(found, "about", ABOUT)
    guard, technique = _guard(_table(found, "guard", GUARD)), _technique(_table(found, "technique", None))
    if guard and steps is None:
        raise RecipeError("guard: is for a step plan, and there is no table [steps]")
    plan = None if steps is None else _step_plan(steps, guard)
    return Recipe(name, **found, steps=plan, technique=technique, **(about or {}))


def _table(found: dict, name: str, known: Iterable[str] | None) -> dict | None:
    """Take the table of that name out of what was found; None if it is not there. known: None: any keys."""
    table = found.pop(name, None)
    if table is not None and not isinstance(table, dict):
        raise RecipeError(f"{name}: must be a table, [{name}], is {table!r}")
    _check_keys(table or {}, table or {} if known is None else known, f"{name}.")
    return table


def _technique(table: Mapping | None) -> TechniqueChoice | None:
    if table is None:
        return None
    if not isinstance(table.get("name"), str):
        raise RecipeError("technique.name: is missing or no text; python -m pipeline.caches list has names")
    try:
        return TechniqueChoice(table["name"], {key: table[key] for key in table if key != "name"})
    except TechniqueError as error:
        raise RecipeError(f"technique.{error}") from error


def _check_version(steps: object) -> None:
    for key in EARLIER:
        if isinstance(steps, dict) and key in steps:
            raise RecipeError(
                f"steps.{key}: an earlier version fitted this, and means something else by it; tune again "
                "(tune.py --start takes this file too, once it is without jumps and levels)"
            )


def _guard(table: Mapping | None) -> Guard | None:
    if table is None:
        return None
    for key in ("videos", "changes"):
        if key not in table:
            raise RecipeError(f"guard.{key}: is missing; tune again")
    for key, value in table.items():
        rows = key in ("means", "spreads")
        if key in ("means", "spreads", "changes", "limits") and not _is_numbers(value, rows):
            raise RecipeError(f"guard.{key}: must be a list of {'rows of ' * rows}numbers")
        if key == "constants" and not (isinstance(value, list) and all(isinstance(n, str) for n in value)):
            raise RecipeError("guard.constants: must be a list of names")
    try:
        return Guard(**table)
    except GuardError as error:
        raise RecipeError(f"guard.{error}") from error


def _step_plan(table: Mapping, guard: Guard | None) -> StepPlan:
    for key, value in table.items():
        if key == "actions" and not isinstance(value, str):
            raise RecipeError(f"steps.actions: must be text in quotes, is {value!r}")
        if key != "actions" and not _is_numbers(value, rows=key in ROWS):
            raise RecipeError(f"steps.{key}: must be a list of {'rows of ' * (key in ROWS)}numbers")
    if "actions" not in table:
        raise RecipeError("steps.actions: is missing; a letter for each step, such as 'FSSC'")
    try:
        return StepPlan(**table, guard=guard)
    except StepPlanError as error:
        raise RecipeError(f"{'' if str(error).startswith('guard.') else 'steps.'}{error}") from error


def _is_numbers(value: object, rows: bool) -> bool:
    if not isinstance(value, list):
        return False
    return all(_is_numbers(each, False) if rows else type(each) in (int, float) for each in value)


def _check_keys(found: Iterable[str], known: Iterable[str], within: str) -> None:
    for key in found:
        if key not in known:
            raise RecipeError(f"{within}{key}: {unknown('setting', key, known)}")


def _toml(value: object) -> str:
    """A value as TOML: text, a number, or rows of numbers, one a line."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "[\n" + "".join(f"    {_toml(row)},\n" for row in value) + "]"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
