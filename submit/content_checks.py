"""Check what is in the archive, without running it: S06 to S09 and S17."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from engines.artifact import Label, differences, file_sha256, find
from engines.errors import EngineError, Exit
from engines.load import graph_precision, starts_from
from pipeline.caches.calibration import CALIBRATIONS
from pipeline.caches.technique import load_technique
from pipeline.submission import FILE as MANIFEST
from submit.archive_checks import PACK
from submit.checks import Note, Submission, check
from submit.imports import distribution, needed_packages, technique_files
from submit.model_files import build_seconds, expected_of_engine
from submit.pack import ENTRY, REQUIREMENTS, WHEELS
from submit.packages import Pin, installs_offline, parse_pins, resolve
from submit.pickles import is_pickle
from submit.requirement_lines import misleading

ADD = f"pin it in {REQUIREMENTS}: make the archive with python -m submit pack"


@check("S06", "requirements", "a version that was not tried is installed, or nothing is", ADD)
def requirements(submission: Submission) -> Iterator[str]:
    """Check that pins are exact and complete for the target, and that a wheelhouse has each with its hash."""
    profile = submission.profile
    if REQUIREMENTS not in submission.files:
        yield f"{REQUIREMENTS} is missing"
        return
    text = submission.text(REQUIREMENTS)
    (pins, wrong), doubts = parse_pins(text, profile.index), list(misleading(text))
    yield from (f"{line!r} is not as name==version" for line in wrong)
    yield from doubts
    keys = [pin.key for pin in pins]
    yield from sorted({f"{key} is there twice" for key in keys if keys.count(key) > 1})
    wheels = submission.folder / WHEELS
    if wrong or doubts:
        return
    if wheels.is_dir():
        yield from (f"{pin.name} has no hash" for pin in pins if not pin.hashes)
        lacking = installs_offline(pins, wheels, profile)
        if lacking:
            yield f"the wheelhouse is not complete: {lacking}"
        return
    as_given = (name for lines in profile.as_given.values() for name in lines)
    given = {canonicalize_name(name.partition("==")[0]) for name in as_given}
    asked = [f"{pin.name}=={pin.version}" for pin in pins if pin.key not in given]
    needed = resolve(asked, profile, [], {})
    yield from (f"{pin.name} is needed too, and not pinned" for pin in needed if pin.key not in keys)
    yield Note(f"{len(pins)} packages for Python {profile.python} and glibc {profile.glibc}")


@check("S07", "imports", "the first import of a package that is not there ends the run", ADD)
def imports_covered(submission: Submission) -> Iterator[str]:
    """Check that what the entry script imports with this recipe is pinned, or on the target's image."""
    profile, own = submission.profile, submission.manifest.generator
    starts = [ENTRY, *technique_files(submission.recipe)]
    lacking = [name for name in (*starts, own) if name and name not in submission.files]
    if lacking:
        yield from (f"{name} is not in the archive" for name in lacking)
        return
    for name in submission.files:
        if name.endswith(".py"):
            submission.code(name)  # an error here, with its name
    pins = {pin.key for pin in submission.pins}
    needed = needed_packages(submission.folder, starts, submission.recipe.backend, own, profile.version)
    for name, file in needed.items():
        lines = profile.as_given.get(name) or profile.packages.get(name)
        wanted = [re.split(r"[^\w.-]", line)[0] for line in lines or [distribution(name, profile.device)]]
        if name not in profile.preinstalled and not {canonicalize_name(each) for each in wanted} <= pins:
            yield f"{file} imports {name}, and {', '.join(wanted)} is not pinned"


@check(
    "S08", "model files fit the target", "an engine for another GPU or TensorRT does not load",
    "build the engines on such a GPU, or pack for the target: it adds the graphs and a build step",
    Exit.ENVIRONMENT,
)  # fmt: skip
def engines_fit(submission: Submission) -> Iterator[str]:
    """Check that each component has what its backend loads there, or can be built there in time."""
    backend, manifest, technique = submission.recipe.backend, submission.manifest, submission.recipe.technique
    folder = submission.folder / manifest.folder
    if technique and load_technique(technique.name).calibrated and not list(folder.glob(CALIBRATIONS)):
        yield f"{technique.name} is fitted to base runs, and {manifest.folder} has no calibration"
    for path in sorted(submission.folder.rglob("*.engine")):
        yield from _misfits(path, submission)
    if starts_from(backend) is None:
        return
    seconds = 0.0
    for component, precision in submission.precisions.items():
        precision = graph_precision(backend, precision)
        graph = Label(component, precision, ".onnx")
        try:
            found = find(folder, graph, {}, PACK)
        except EngineError as error:
            yield str(error).splitlines()[0].replace(str(folder), manifest.folder)
            continue
        if starts_from(backend) == ".engine" and not list(
            folder.glob(f"{component}-{precision}-????????.engine")
        ):
            seconds += build_seconds(found, submission.profile)
    if not seconds:
        return
    yield Note(f"engines are built at the first run: {seconds:.0f} s at a guess")
    if not manifest.entry.get("build"):
        yield f"engines are missing, and {MANIFEST} does not have {ENTRY} build them"
    if seconds > submission.profile.environment_seconds:
        yield f"building takes {seconds:.0f} s, allowed are {submission.profile.environment_seconds:.0f}"


def _misfits(path: Path, submission: Submission) -> Iterator[str]:
    """Yield why an engine does not load on the target."""
    name, sidecar = path.relative_to(submission.folder).as_posix(), path.with_name(f"{path.name}.json")
    if not submission.profile.gpu:
        yield f"{name} needs a GPU, and {submission.profile.name} has none"
        return
    try:
        built_from = dict(json.loads(sidecar.read_text(encoding="utf-8"))["built_from"])
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{name} has no manifest that says what it is for"
        return
    for sentence in differences(expected_of_engine(submission.profile), built_from):
        yield f"{name}: {sentence}"


@check("S09", "files are whole", "a file that was cut or changed fails there, or runs code of others", PACK)
def whole_files(submission: Submission) -> Iterator[str]:
    """Check SHA-256 of every file, that graphs and weights can be read, and that there is no pickle."""
    listed, folder = submission.manifest.files, submission.folder
    for name in submission.files:
        path, suffix = folder / name, PurePosixPath(name).suffix.lower()
        if name != MANIFEST and name not in listed:
            yield f"{name} is not listed in {MANIFEST}"
        elif name != MANIFEST and file_sha256(path) != listed[name]:
            yield f"{name} is not as {MANIFEST} lists it"
        if suffix == ".onnx":
            yield from _broken_graph(path, name)
        elif suffix == ".safetensors":
            yield from _broken_tensors(path, name)
        elif is_pickle(path):
            yield f"{name} is a pickle, which can run any code; save tensors as safetensors"
    missing = sorted(listed.keys() - set(submission.files))
    yield from (f"{name} is listed in {MANIFEST} and missing" for name in missing)


def _broken_graph(path: Path, name: str) -> Iterator[str]:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        yield f"{name} is no whole ONNX graph: {str(error).splitlines()[0]}"


def _broken_tensors(path: Path, name: str) -> Iterator[str]:
    """Check a safetensors file by its header, which its own library reads and holds against the size."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as tensors:
            tensors.keys()
    except (SafetensorError, OSError, UnicodeError) as error:
        yield f"{name} is no whole safetensors file: {error}"


@check("S17", "licences", "who passes on the work of others must say whose and on what terms", PACK)
def licences(submission: Submission) -> Iterator[str]:
    """Check for our licence, one for every package, and the GPL's name beside the program that has it."""
    if "LICENSE" not in submission.files or not submission.text("LICENSE").strip():
        yield "LICENSE is missing or empty"
    known = {canonicalize_name(name): text for name, text in submission.manifest.licences.items()}
    wheels = (submission.folder / WHEELS).glob("*.whl")
    packed = [canonicalize_name(wheel.name.split("-")[0]) for wheel in wheels]
    for pin in submission.pins:
        yield from _unlicensed(pin, known.get(pin.key), pin.key in packed)


def _unlicensed(pin: Pin, text: str | None, packed: bool) -> Iterator[str]:
    if text is None:
        yield f"{MANIFEST} names no licence of {pin.name}"
    elif text == "unknown":
        reason = f"the licence of {pin.name} is not known; look it up"
        yield reason if packed else Note(reason)
    elif pin.key == "imageio-ffmpeg" and "GPL" not in text:
        yield f"{pin.name} carries ffmpeg, and its licence, the GPL, is not named"
