"""Define a check: an id, why it is made, what to do when it fails, and a function that finds problems."""

from __future__ import annotations

import ast
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from engines.errors import EngineError, Exit, InputError
from engines.precision import choose_precisions
from generators.adapters import split_name
from generators.contract import BUNDLED
from pipeline.recipe import Recipe, RecipeError, load_recipe
from pipeline.submission import FILE
from submit.archive import MB, read_entries, unpack, unsafe
from submit.errors import SubmitError
from submit.pack import RECIPE, REQUIREMENTS
from submit.packages import Pin, parse_pins
from submit.profile import Profile

OUT_OF_TIME = "the time of --limit was over before this check was made"
PASS, FAIL, NOT_EVALUATED, ON_TRUST = "pass", "fail", "not evaluated", "pass on trust"
MOST_PROBLEMS = 20  # shown of one check
LONGEST = 2000  # characters shown of one problem
MOST_TEXT, MOST_CODE = 20 * MB, 2 * MB  # of a file that is looked through
DAY = 86_400.0
MARGIN = 3.0  # seconds after the deadline in which a check that has run no program is ended
# What readers raise at files that mean harm: no text, nested too deeply, numbers of 5,000 digits, and so on.
HOSTILE = (ValueError, RecursionError, OverflowError, MemoryError, OSError)
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


def evaluate(each: Check, subject: object, on_trust: bool = False) -> Result:
    """Run a check on a Submission or its Trial, within the time that is left; on_trust: it is no proof."""
    submission = getattr(subject, "submission", subject)
    problems, notes, status = [], [], ON_TRUST if on_trust else PASS
    try:
        with ended_after(submission.until + MARGIN - time.monotonic()):
            for text in islice(each.find(subject), MOST_PROBLEMS):
                (notes if isinstance(text, Note) else problems).append(str(text)[:LONGEST])
    except NotEvaluated as error:
        status = NOT_EVALUATED
        notes.append(str(error))
    except (InputError, SubmitError, EngineError, RecipeError, SyntaxError) as error:
        problems.append(str(error)[:LONGEST])
    except HOSTILE as error:
        problems.append(f"a file cannot be read: {error!r}"[:LONGEST])
    status = FAIL if problems else status
    return Result(each.id, each.name, status, each.reason, each.fix, problems, notes)


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raise NotEvaluated in the block if it takes longer, on the main thread; others go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise NotEvaluated(OUT_OF_TIME)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
        name, _ = split_name(self.entry["generator"])
        return None if name in BUNDLED else name.rpartition(":")[0]

    @property
    def folder(self) -> str:
        """Return the folder of its built files."""
        return f"engines/built/{Path(self.generator_name).name}"


class Submission:
    """An archive under test, for a target; a context manager that removes what was unpacked."""

    def __init__(self, path: Path, profile: Profile, seconds: float = DAY) -> None:
        """seconds: that all its checks may take. InputError: this is no zip file."""
        self.path, self.profile = path, profile
        self.until = time.monotonic() + seconds
        self.entries = read_entries(path)
        self._stack = ExitStack()

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def seconds_left(self) -> float:
        """Return the time that is left. NotEvaluated: there is none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise NotEvaluated(OUT_OF_TIME)
        return left

    @cached_property
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

    @cached_property
    def files(self) -> list[str]:
        """Return names of its files, sorted."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def text(self, name: str) -> str:
        """Read a file as UTF-8, with U+FFFD for what is not. InputError: it is too large."""
        path = self._small(name, MOST_TEXT)
        return path.read_text(encoding="utf-8", errors="replace")

    def beginning(self, name: str, count: int = 12) -> bytes:
        """Read the first bytes of a file."""
        with (self.folder / name).open("rb") as file:
            return file.read(count)

    def code(self, name: str) -> ast.AST:
        """Parse a file of Python. InputError: it is none that can be read."""
        path = self._small(name, MOST_CODE)
        try:
            return ast.parse(path.read_text(encoding="utf-8"), name)
        except SyntaxError as error:
            raise InputError(f"{name} is no Python: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not UTF-8 ({error}); save it as UTF-8") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"{name} cannot be parsed: {error!r}") from error

    def _small(self, name: str, most: float) -> Path:
        path = self.folder / name
        if path.stat().st_size > most:
            raise InputError(f"{name} has more than {most / MB:g} MB, too much to be looked through")
        return path

    @property
    def pins(self) -> list[Pin]:
        """Return what its requirements pin; nothing if it has none."""
        if REQUIREMENTS not in self.files:
            return []
        return parse_pins(self.text(REQUIREMENTS), self.profile.index)[0]

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
        if path.stat().st_size > MOST_TEXT:
            raise ValueError("it is too large")
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{FILE} is not one that `python -m submit pack` writes ({error!r})") from error
    return manifest
