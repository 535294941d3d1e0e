"""What a check is: an id, why it is made, what to do when it fails, and a function that finds problems."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from engines.errors import EngineError, Exit, InputError
from engines.precision import choose_precisions
from pipeline.recipe import Recipe, RecipeError, load_recipe
from submit.archive import MB, read_entries, unpack, unsafe
from submit.errors import SubmitError
from submit.manifest import Manifest, read_manifest
from submit.pack import RECIPE
from submit.profile import Profile

PASS, FAIL, NOT_EVALUATED = "pass", "fail", "not evaluated"
MOST_PROBLEMS = 20  # shown of one check
BOMB_RATIO = 200  # unpacked bytes by packed ones; deflate's most is 1032, of files of one byte
SMALL = 10 * MB


class Note(str):
    """What a check measured or did, in its result and no problem."""


class NotEvaluated(Exception):
    """A check could not be made; the text says why. That is never a pass."""


@dataclass(frozen=True)
class Check:
    """find yields problems as text, and Notes. reason: what goes wrong without it. exit: if it fails."""

    id: str
    name: str
    reason: str
    fix: str
    find: Callable[..., Iterable[str]]
    exit: Exit = Exit.INPUT


@dataclass(frozen=True)
class Result:
    """What came of a check: status is pass, fail or not evaluated."""

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
    """Why entries may be a zip bomb, by the sizes that they declare; zipfile reads no more than those."""
    total = 0
    for entry in entries:
        total += entry.file_size
        if entry.file_size > SMALL and entry.file_size > BOMB_RATIO * max(entry.compress_size, 1):
            yield f"{entry.orig_filename!r} grows {entry.file_size // max(entry.compress_size, 1)} fold"
    if total > profile.max_unpacked_mb * MB:
        yield f"unpacked it has {total / MB:.0f} MB, allowed are {profile.max_unpacked_mb:g}"


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
        """Whether it may be unpacked."""
        return not any(unsafe(self.entries)) and not any(too_large(self.entries, self.profile))

    @cached_property
    def folder(self) -> Path:
        """Its files, unpacked; NotEvaluated if that is not safe."""
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
        """Names of its files, sorted."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    @cached_property
    def manifest(self) -> Manifest:
        """What it says of itself; NotEvaluated if it says nothing."""
        try:
            return read_manifest(self.folder)
        except InputError as error:
            raise NotEvaluated(f"{error}: see S02") from error

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that it runs by default. RecipeError."""
        return load_recipe(self.folder / RECIPE)

    @property
    def precisions(self) -> dict[str, str]:
        """By component."""
        return choose_precisions(self.recipe.precision, self.manifest.components)
