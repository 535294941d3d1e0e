"""The exact packages of a submission: resolved by pip for the target's Python and system, with licences."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engines.artifact import file_sha256
from engines.errors import Exit
from submit.errors import SubmitError
from submit.imports import distribution
from submit.profile import HERE, Profile
from submit.requirement_lines import requirement_lines

RANGES = {"cpu": "requirements.txt", "cuda": "requirements-gpu.txt"}
WHEELS = "wheels"  # a folder of the archive with all packages
TECHNIQUES = "pipeline/caches/requirements.txt"
PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==([\w.!]+)((?: --hash=sha256:[0-9a-f]{64})*)", re.ASCII)
LICENCE_CLASS = "License :: "


@dataclass(frozen=True)
class Pin:
    """A package in one version; hashes of the wheels that may be it; its licence, if that is known."""

    name: str
    version: str
    licence: str | None = None
    hashes: tuple[str, ...] = ()

    def __str__(self) -> str:
        hashes = "".join(f" --hash=sha256:{each}" for each in self.hashes)
        return f"{self.name}=={self.version}{hashes}"

    @property
    def key(self) -> str:
        """The name as pip compares it."""
        return canonicalize_name(self.name)


def parse_pins(text: str, index: str | None = None) -> tuple[list[Pin], list[str]]:
    """The pins of a requirements file, and its lines that are neither a pin nor an option that pack writes.

    index: the one that it may name. Lines are those that pip would take.
    """
    pins, wrong = [], []
    options = {"--no-index", f"--find-links {WHEELS}", f"--extra-index-url {index}"}
    for line in requirement_lines(text):
        found = PINNED.fullmatch(re.sub(" +", " ", line))
        if found:
            hashes = tuple(re.findall(r"sha256:([0-9a-f]+)", found[3]))
            pins.append(Pin(found[1], found[2], hashes=hashes))
        elif line and line not in options:
            wrong.append(line)
    return pins, wrong


def repository_ranges(root: Path, device: str) -> tuple[dict[str, str], dict[str, str]]:
    """Requirement lines of the repository's files for that device by package, and their licences."""
    ranges, licences = {}, {}
    files = [root / file for file in (TECHNIQUES, RANGES[device.partition(":")[0]])]  # the last one counts
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file() or path is files[-1]]
    for line in "\n".join(texts).splitlines():
        text, _, comment = line.partition("#")
        name = re.match(r"[\w.-]+", text)
        if name:
            ranges[canonicalize_name(name[0])] = text.strip()
            licences[canonicalize_name(name[0])] = re.split(r"[:;]|\(run\)", comment)[0].strip()
    return ranges, licences


def choose(imports: Iterable[str], profile: Profile, root: Path) -> list[Pin]:
    """A pin for every package that imports need on that machine, dependencies included; SubmitError.

    Where the target's Python is this one, versions are those installed here: what was tried is what is sent.
    """
    ranges, licences = repository_ranges(root, profile.device)
    wanted, given = [], []
    for name in imports:
        package = canonicalize_name(distribution(name, profile.device))
        if name in profile.preinstalled:
            continue
        if name in profile.as_given:
            given += [_given(line, licences.get(package)) for line in profile.as_given[name]]
        elif name in profile.packages:
            wanted += profile.packages[name]
        elif package in ranges:
            wanted.append(ranges[package])
        else:
            where = RANGES[profile.device.partition(":")[0]]
            raise SubmitError(f"{name} is imported and {where} does not name {package}; add a line for it")
    constraints = _installed() if profile.python == HERE else []
    pins = {pin.key: pin for pin in resolve(wanted, profile, constraints, licences)}
    pins |= {pin.key: pin for pin in given}
    return [pins[key] for key in sorted(pins)]


def resolve(
    wanted: Sequence[str], profile: Profile, constraints: Sequence[str], licences: Mapping[str, str]
) -> list[Pin]:
    """What pip would install on that machine; markers count as they hold there. SubmitError if it cannot."""
    wanted = list(wanted)
    while True:
        found = _ask_pip(wanted, profile, constraints)
        reached, missing = _reach([Requirement(each) for each in wanted], found, profile)
        if not missing:
            return [_pin(found[key], licences) for key in sorted(reached)]
        wanted += missing  # wanted there and not by the Python that pip runs on


def download(pins: Sequence[Pin], profile: Profile, folder: Path) -> list[Pin]:
    """Fetch the wheel of every pin into folder; the pins with hashes. SubmitError."""
    with tempfile.TemporaryDirectory() as staging:
        names = Path(staging) / "pins.txt"
        names.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
        _pip(["download", "--no-deps", "--dest", str(folder), "-r", str(names)], profile)
    hashes: dict[str, list[str]] = {}
    for wheel in sorted(folder.iterdir()):
        hashes.setdefault(canonicalize_name(wheel.name.split("-")[0]), []).append(file_sha256(wheel))
    return [Pin(pin.name, pin.version, pin.licence, tuple(hashes[pin.key])) for pin in pins]


def installs_offline(pins: Iterable[Pin], wheels: Path, profile: Profile) -> str | None:
    """None if a wheelhouse has all that the pins need on that machine, else what pip says."""
    with tempfile.TemporaryDirectory() as staging:
        requirements = Path(staging) / "pins.txt"
        requirements.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        where = ["--no-index", "--find-links", str(wheels), "--require-hashes", "--target", staging]
        try:
            _pip(["install", "--dry-run", *where, "-r", str(requirements)], profile)
        except SubmitError as error:
            return str(error)
    return None


def only_what_is_given() -> dict[str, str]:
    """An environment in which pip knows of no index and no wheels but those on its command line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


def _ask_pip(wanted: Sequence[str], profile: Profile, constraints: Sequence[str]) -> dict[str, dict]:
    """Metadata of what pip would install, by package."""
    with tempfile.TemporaryDirectory() as staging:
        report, fixed = Path(staging) / "report.json", Path(staging) / "constraints.txt"
        fixed.write_text("".join(f"{each}\n" for each in constraints))
        where = ["--target", staging, "--report", str(report), "-c", str(fixed)]
        _pip(["install", "--dry-run", "--ignore-installed", *where, *wanted], profile)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonicalize_name(each["metadata"]["name"]): each["metadata"] for each in found}


def _pip(arguments: Sequence[str], profile: Profile) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-input", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", profile.python]
    command += [word for tag in profile.platforms for word in ("--platform", tag)]
    if profile.index and arguments[0] == "download":
        command += ["--extra-index-url", profile.index]
    own = only_what_is_given() if "--no-index" in arguments else None
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=own)
    if answer.returncode:
        said = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")] or ["nothing"]
        what = f"pip finds no packages for Python {profile.python} and glibc {profile.glibc}"
        raise SubmitError("\n".join([what, *(f"  {line}" for line in said)]), Exit.ENVIRONMENT)


def _reach(
    wanted: Sequence[Requirement], found: Mapping[str, dict], profile: Profile
) -> tuple[set[str], list[str]]:
    """Packages that requirements lead to on that machine, and requirements of these that are not found."""
    environment = profile.markers()
    reached, missing = set(), []
    todo = [(each, "") for each in wanted]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            missing.append(f"{requirement.name}{extras}{requirement.specifier}")
            continue
        reached.add(name)
        for each in ("", *requirement.extras):
            if (name, each) not in seen:
                seen.add((name, each))
                todo += [(Requirement(text), each) for text in found[name].get("requires_dist") or ()]
    return reached, missing


def _installed() -> list[str]:
    """What is installed here, without local versions such as +cpu."""
    every = importlib.metadata.distributions()
    return sorted({f"{each.metadata['Name']}=={each.version.partition('+')[0]}" for each in every})


def _pin(metadata: Mapping, licences: Mapping[str, str]) -> Pin:
    name = metadata["name"]
    said = [metadata.get("license_expression"), _installed_licence(name), metadata.get("license")]
    classes = [each for each in metadata.get("classifier") or () if each.startswith(LICENCE_CLASS)]
    named = [licences.get(canonicalize_name(name)), *filter(_is_short, said)]
    named += [each.rpartition(" :: ")[2] for each in classes]
    return Pin(name, metadata["version"].partition("+")[0], next(filter(None, named), None))


def _installed_licence(name: str) -> str | None:
    """Of the same package here, whatever its version; pip before 25 does not tell License-Expression."""
    try:
        return importlib.metadata.metadata(name).get("License-Expression")
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_short(text: str | None) -> bool:
    """Whether a licence field holds a name, not the whole text."""
    return bool(text) and len(text) <= 80 and "\n" not in text


def _given(line: str, licence: str | None) -> Pin:
    pins, wrong = parse_pins(line)
    if wrong:
        raise SubmitError(f"as_given: {line!r} is not as name==version")
    return Pin(pins[0].name, pins[0].version, licence)
