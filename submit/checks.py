"""Define a check: an id, why it is made, what to do when it fails, and a function that finds problems."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from engines.errors import EngineError, Exit, InputError
from engines.precision import choose_precisions
from generators.contract import BUNDLED
from pipeline.recipe import Recipe, RecipeError, load_recipe
from pipeline.submission import FILE
from submit.archive import MB, read_entries, unpack, unsafe
from submit.errors import SubmitError
from submit.pack import RECIPE, REQUIREMENTS
from submit.packages import Pin, parse_pins
from submit.profile import Profile

PASS, FAIL, NOT_EVALUATED = "pass", "fail", "not evaluated"
MOST_PROBLEMS = 20  # shown of one check
BOMB_RATIO = 200  # unpacked bytes by packed ones; deflate's most is 1032, of files of one byte
SMALL = 10 * MB


class Note(str):
    """A remark of a check on what it measured or did; it is in the result and no problem."""


class NotEvaluated(Exception):
    """An error: a check could not be made; the text says why. That is never a pass."""


@dataclass(frozen=True)
class Check:
    """A check. find yields problems as text, and Notes; reason: what goes wrong without it.

    exit: how a script ends if it fails.
    """

    id: str
    name: str
    reason: str
    fix: str
    find: Callable[..., Iterable[str]]
    exit: Exit = Exit.INPUT


@dataclass(frozen=True)
class Result:
    """The result of a check: status is pass, fail or not evaluated."""

    id: str
    name: str
    status: str
    reason: str
    fix: str
    problems: list[str]
    notes: list[str] = field(default_factory=list)


def check(id: str, name: str, reason: str, fix: str, exit: Exit = Exit.INPUT) -> Callable[..., Check]:
    """Make a check of the function that finds its problems."""
    return lambda find: Check(id, name, reason, fix, find, exit)


def evaluate(each: Check, subject: object) -> Result:
    """Run a check on what it is for: a Submission, or its Runs."""
    problems, notes, status = [], [], PASS
    try:
        for text in islice(each.find(subject), MOST_PROBLEMS):
            (notes if isinstance(text, Note) else problems).append(str(text))
    except NotEvaluated as error:
        status = NOT_EVALUATED
        notes.append(str(error))
    except (InputError, SubmitError, EngineError, RecipeError, SyntaxError) as error:
        problems.append(str(error))
    status = FAIL if problems else status
    return Result(each.id, each.name, status, each.reason, each.fix, problems, notes)


def too_large(entries: Iterable, profile: Profile) -> Iterator[str]:
    """Yield why entries may be a zip bomb, by the sizes that they declare; zipfile reads no more."""
    total = 0
    for entry in entries:
        total += entry.file_size
        if entry.file_size > SMALL and entry.file_size > BOMB_RATIO * max(entry.compress_size, 1):
            yield f"{entry.orig_filename!r} grows {entry.file_size // max(entry.compress_size, 1)} fold"
    if total > profile.max_unpacked_mb * MB:
        yield f"unpacked it has {total / MB:.0f} MB, allowed are {profile.max_unpacked_mb:g}"


@dataclass(frozen=True)
class Manifest:
    """The content of submission.json, which may come from anywhere: nothing in it is taken on trust.

    files: SHA-256 by name. licences by package. entry: infer.py's defaults.
    """

    files: Mapping[str, str]
    licences: Mapping[str, str]
    entry: Mapping
    components: list[str]
    generator_name: str

    @property
    def generator(self) -> str | None:
        """Return the file of a generator that does not come with Vivace."""
        name = self.entry["generator"]
        return None if name in BUNDLED else name.rpartition(":")[0]

    @property
    def folder(self) -> str:
        """Return the folder of its built files."""
        return f"engines/built/{Path(self.generator_name).name}"


class Submission:
    """An archive under test, for a target; a context manager that removes what was unpacked."""

    def __init__(self, path: Path, profile: Profile) -> None:
        """InputError: this is no zip file."""
        self.path, self.profile = path, profile
        self.entries = read_entries(path)
        self._stack = ExitStack()

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def is_safe(self) -> bool:
        """Return whether it may be unpacked."""
        return not any(unsafe(self.entries)) and not any(too_large(self.entries, self.profile))

    @cached_property
    def folder(self) -> Path:
        """Unpack its files; NotEvaluated if that is not safe."""
        if not self.is_safe:
            raise NotEvaluated("the archive is not safe to unpack: see S01 and S03")
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vivace-")))
        try:
            unpack(self.path, folder)
        except InputError as error:
            raise NotEvaluated(f"the archive cannot be unpacked ({error}): see S01") from error
        return folder

    @property
    def files(self) -> list[str]:
        """Return names of its files, sorted."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def text(self, name: str) -> str:
        """Read a file as UTF-8, with U+FFFD for what is not."""
        return (self.folder / name).read_text(encoding="utf-8", errors="replace")

    @property
    def pins(self) -> list[Pin]:
        """Return what its requirements pin; nothing if it has none."""
        return parse_pins(self.text(REQUIREMENTS))[0] if REQUIREMENTS in self.files else []

    @cached_property
    def manifest(self) -> Manifest:
        """Read what it says of itself; NotEvaluated if it says nothing."""
        try:
            return read_manifest(self.folder)
        except InputError as error:
            raise NotEvaluated(f"{error}: see S02") from error

    @cached_property
    def recipe(self) -> Recipe:
        """Load the recipe that it runs by default. RecipeError."""
        return load_recipe(self.folder / RECIPE)

    @property
    def precisions(self) -> dict[str, str]:
        """Return precisions by component."""
        return choose_precisions(self.recipe.precision, self.manifest.components)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an unpacked archive. InputError: it has none, or not one that pack writes."""
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(
            {str(name): str(sha256) for name, sha256 in found["files"].items()},
            {str(name): str(text) for name, text in found["licences"].items()},
            dict(found["entry"]),
            [str(name) for name in found["components"]],
            str(found["generator"]),
        )
        if not isinstance(manifest.entry["generator"], str):
            raise ValueError("entry.generator is no text")
    except FileNotFoundError as error:
        raise InputError(f"{FILE} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{FILE} is not one that `python -m submit pack` writes ({error!r})") from error
    return manifest
