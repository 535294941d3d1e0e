"""A recipe: a TOML file with all that differs from the base model's run; the empty one is the baseline."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engines.load import BACKENDS
from engines.precision import PrecisionError, choose_precisions
from engines.unknown import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS = ("backend", "precision", "about")
ABOUT = ("note",)


class RecipeError(ValueError):
    """A recipe cannot be used; the text names the file, the key and what would be right."""


@dataclass(frozen=True)
class Recipe:
    """How to run a generator.

    backend: a name of engines.load.BACKENDS, or "auto". precision: as infer.py takes it, "fp16,denoise=int8";
    whether the generator has these components is known only when it runs. note: a sentence for people.
    """

    name: str
    backend: str = "torch"
    precision: str = "fp32"
    note: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "backend", "precision", "note"):
            value = getattr(self, key)
            if not isinstance(value, str):
                raise RecipeError(f"{key}: must be text in quotes, is {value!r}")
        if self.backend not in ("auto", *BACKENDS):
            raise RecipeError(f"backend: {unknown('backend', self.backend, ('auto', *BACKENDS))}")
        named = [part.strip().rpartition("=")[0] for part in self.precision.split(",")]
        try:
            choose_precisions(self.precision, filter(None, named))
        except PrecisionError as error:
            raise RecipeError(f"precision: {error}") from error

    @property
    def is_baseline(self) -> bool:
        """Whether this runs the base model as it is."""
        return self.arguments() == Recipe(self.name).arguments()

    def arguments(self) -> list[str]:
        """What infer.py is called with."""
        return ["--backend", self.backend, "--precision", self.precision]


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file, named as the file is without .toml; RecipeError if anything in it is wrong."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        _check_keys(found, SETTINGS, "")
        about = found.pop("about", {})
        if not isinstance(about, dict):
            raise RecipeError(f"about: must be a table, [about], is {about!r}")
        _check_keys(about, ABOUT, "about.")
        return Recipe(path.stem, **found, **about)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); give the path of a recipe") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise RecipeError(f"{path}: is not a TOML file ({error})") from error


def _check_keys(found: Iterable[str], known: Iterable[str], within: str) -> None:
    for key in found:
        if key not in known:
            raise RecipeError(f"{within}{key}: {unknown('setting', key, known)}")
