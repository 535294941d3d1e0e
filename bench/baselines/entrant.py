"""A rival as the bench times it: its settings, and the engine under it, in a file as a recipe is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from bench.baselines.errors import RivalError
from bench.baselines.rival import load_rival
from engines.errors import unknown
from engines.files import atomic_write
from pipeline.recipe import Recipe, RecipeError


@dataclass(frozen=True)
class Entrant:
    """Beside recipes in bench/timing.py: a name of its own, and how a run of it is started.

    note: a sentence for people. is_baseline: never, whatever the settings. RivalError or RecipeError:
    something in it cannot be used.
    """

    name: str
    rival: str
    settings: Mapping[str, float] = field(default_factory=dict)
    backend: str = "torch"
    precision: str = "fp32"
    note: str = ""

    is_baseline = False

    def __post_init__(self) -> None:
        if not isinstance(self.settings, Mapping) or not all(
            type(value) in (int, float) for value in self.settings.values()
        ):
            raise RivalError(f"settings must be numbers by knob, are {self.settings!r}")
        load_rival(self.rival).check_backend(self.recipe.backend)

    @property
    def recipe(self) -> Recipe:
        """Its name and engine; RecipeError if they cannot be used."""
        return Recipe(self.name, self.backend, self.precision, self.note)

    def arguments(self) -> list[str]:
        """What follows `python` to run it; data, output and generator follow in turn."""
        settings = [part for name, value in self.settings.items() for part in ("--set", f"{name}={value}")]
        engine = ["--backend", self.backend, "--precision", self.precision]
        return ["-m", "bench.baselines", "run", self.rival, *settings, *engine, "--name", self.name]

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        with atomic_write(path) as draft:
            draft.write_text(text, encoding="utf-8")


def load_entrant(path: Path) -> Entrant:
    """From a file that save wrote; RivalError names the file and what is wrong in it."""
    known = [each.name for each in fields(Entrant)]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise RivalError("is no JSON object")
        for key in found:
            if key not in known:
                raise RivalError(unknown("setting", key, known))
        if not {"name", "rival"} <= found.keys():
            raise RivalError("name and rival are missing")
        return Entrant(**found)
    except OSError as error:
        raise RivalError(f"{path}: cannot be read ({error.strerror})") from error
    except (RivalError, RecipeError) as error:
        raise RivalError(f"{path}: {error}") from error
    except ValueError as error:
        raise RivalError(f"{path}: is no JSON ({error})") from error
