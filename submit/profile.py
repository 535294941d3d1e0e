"""Describe the machine that a submission is for, as far as it is known or guessed: a TOML file each."""

from __future__ import annotations

import math
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import packaging.markers

from engines.errors import unknown
from engines.toml_file import parse_toml
from submit.errors import SubmitError

PROFILES = Path(__file__).parent / "profiles"
HERE = "{}.{}".format(*sys.version_info)
VERSION = re.compile(r"\d{1,3}\.\d{1,3}")
NUMBERS = ("max_mb", "max_unpacked_mb", "environment_seconds", "build_component_seconds", "build_gb_seconds")


@dataclass(frozen=True)
class Profile:
    """A target machine.

    python: as "3.10". glibc: the newest whose wheels it can load. gpu: "sm" and "name", as engines'
    manifests have them; tensorrt: the version there. index: of packages that PyPI has not. packages: by
    import, requirements in place of the repository's ranges. as_given: by import, exact requirements that
    are written down without a look at PyPI. preinstalled: imports that the machine's image has.
    entry: further defaults of infer.py there, as data and out. max_mb, max_unpacked_mb: of the archive.
    environment_seconds: allowed for installing and building; build_*: what building an engine takes at a
    guess, for each component and for each GB of its graph.
    """

    name: str
    about: str = ""
    device: str = "cpu"
    python: str = HERE
    glibc: str = ""
    gpu: Mapping[str, str] | None = None
    tensorrt: str | None = None
    index: str | None = None
    packages: Mapping[str, list[str]] = field(default_factory=dict)
    as_given: Mapping[str, list[str]] = field(default_factory=dict)
    preinstalled: tuple[str, ...] = ()
    entry: Mapping[str, str] = field(default_factory=dict)
    max_mb: float = 500.0
    max_unpacked_mb: float = 4000.0
    environment_seconds: float = 1200.0
    build_component_seconds: float = 60.0
    build_gb_seconds: float = 120.0

    def __post_init__(self) -> None:
        for key in ("about", "device", "python", "glibc", "tensorrt", "index"):
            value = getattr(self, key)
            if not isinstance(value, str) and not (value is None and key in ("tensorrt", "index")):
                raise SubmitError(f"profile {self.name}: {key} must be text in quotes")
        for key in NUMBERS:
            value = getattr(self, key)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise SubmitError(f"profile {self.name}: {key} must be a number above 0, is {value!r}")
        if not self.glibc:
            object.__setattr__(self, "glibc", platform.libc_ver()[1] or "2.28")
        for key in ("python", "glibc"):
            if not VERSION.fullmatch(getattr(self, key)):
                shown = getattr(self, key)[:60]
                raise SubmitError(f"profile {self.name}: {key} must be as '3.10', is {shown!r}")
        for key in ("packages", "as_given"):
            if not _is_table(getattr(self, key), _is_texts):
                raise SubmitError(f"profile {self.name}: {key} must have a list of texts for each import")
        for key in ("gpu", "entry"):
            if not _is_table(getattr(self, key) or {}, lambda each: isinstance(each, str | int)):
                raise SubmitError(f"profile {self.name}: {key} must be a table of texts")
        if not _is_texts(self.preinstalled):
            raise SubmitError(f"profile {self.name}: preinstalled must be a list of texts")
        if self.device.startswith("cuda") and not {"sm", "name"} <= set(self.gpu or {}):
            raise SubmitError(f"profile {self.name}: device cuda needs [gpu] with sm and name")

    @property
    def version(self) -> tuple[int, int]:
        """Return Python's version as numbers."""
        major, minor = self.python.split(".")
        return int(major), int(minor)

    @property
    def platforms(self) -> list[str]:
        """Return the wheel tags that its system loads, newest first."""
        newest = int(self.glibc.split(".")[1])
        tags = [f"manylinux_2_{minor}_x86_64" for minor in range(newest, 4, -1)]
        return [*tags, "manylinux2014_x86_64", "manylinux2010_x86_64", "linux_x86_64"]

    def markers(self) -> dict[str, str]:
        """Return what markers of requirements are evaluated with there, whatever this machine is."""
        return {
            **packaging.markers.default_environment(),
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def interpreter(self) -> str | None:
        """Find a Python of that version on this machine, or None."""
        return sys.executable if self.python == HERE else shutil.which(f"python{self.python}")

    def why_not_here(self) -> str | None:
        """Return None if a submission for this machine can be tried here, else the reason."""
        if self.device != "cpu" and shutil.which("nvidia-smi") is None:
            return f"{self.name} needs a GPU, and there is none here"
        if self.interpreter() is None:
            return f"{self.name} needs Python {self.python}, and there is no python{self.python} here"
        return None


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _is_table(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, Mapping) and all(map(fits, value.values()))


def load_profile(name: str) -> Profile:
    """Load the profile of that name in submit/profiles, or of a path to a file; SubmitError.

    A file may begin with `like = "cpu"` and give only what differs from that profile.
    """
    return _load(name, ())


def _load(name: str, after: tuple[Path, ...]) -> Profile:
    """Load a profile. after: the files that are like this one, in which it may not be again."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    try:
        again, known = path.resolve() in after, path.is_file()
    except (OSError, ValueError) as error:  # too long, or with a NUL
        raise SubmitError(f"{name[:60]!r} is the name of no profile: {error}") from error
    if again:
        raise SubmitError(f"{path}: like leads back to this file; name a profile that is like no other")
    if not known and path.parent == PROFILES:
        known = sorted(each.stem for each in PROFILES.glob("*.toml"))
        raise SubmitError(f"{unknown('profile', name, known)}; or give the path of a TOML file")
    try:
        found = parse_toml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SubmitError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SubmitError(f"{path}: is not a TOML file ({error})") from error
    known = [each.name for each in fields(Profile) if each.name != "name"]
    like = found.pop("like", None)
    for key in found:
        if key not in known:
            raise SubmitError(f"{path}: {unknown('setting', key, [*known, 'like'])}")
    if like is None:
        return Profile(path.stem, **found)
    if not isinstance(like, str):
        raise SubmitError(f"{path}: like must be a profile's name in quotes, is {like!r}")
    base = _load(like, (*after, path.resolve()))
    return Profile(path.stem, **{key: getattr(base, key) for key in known} | found)
