"""Built files with manifests of what they were built from and for, refused when that no longer holds.

A generator's folder holds <component>-<precision>-<key>.onnx or .engine, and <that>.json beside each; key is
the hash of what went in. A manifest is written last, so a file without one was never finished.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from engines.errors import EngineError
from engines.files import DRAFT, locked, sync
from engines.hashes import file_sha256, known_sha256
from engines.sources import reached_code
from engines.spec import ComponentSpec, Engine, Model, merged

BUILT = Path(__file__).parent / "built"
Field = str | int | float | bool | None | list | Mapping


class StaleArtifact(EngineError):
    """A built file that does not fit the request or this machine; the text names each field that differs."""


@dataclass(frozen=True)
class Label:
    """The label of an artifact: its component, its precision and its file's suffix (.onnx or .engine)."""

    component: str
    precision: str
    suffix: str

    def __str__(self) -> str:
        return f"{self.component}-{self.precision}{self.suffix}"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its file and its manifest."""

    path: Path
    manifest: Mapping

    @property
    def content(self) -> str:
        """The SHA-256 over all of its files, external data included."""
        return _digest(json.dumps(self.manifest["files"], sort_keys=True))


@dataclass
class Draft:
    """An artifact being written: its file goes to path, what building it showed goes to facts.

    artifact: what came of it, once it is whole.
    """

    path: Path
    facts: dict[str, Field] = field(default_factory=dict)
    artifact: Artifact | None = None


def built_folder(generator: str) -> Path:
    """Return the folder of a generator's artifacts, in engines/built or in $VIVACE_BUILT if that is set."""
    return Path(os.environ.get("VIVACE_BUILT") or BUILT) / generator


def key(built_from: Mapping[str, Field]) -> str:
    """Hash all that the artifact is built from to eight hex digits."""
    return _digest(json.dumps(built_from, sort_keys=True))[:8]


def fingerprint(files: Iterable[Path], in_order: Iterable[Path] = ()) -> str | None:
    """Hash the names and bytes of files, wherever they lie, by SHA-256.

    in_order: further files, whose order counts. None if one is not here, as in a submission.
    """
    paths, further = list(files), list(in_order)
    if not all(path.is_file() for path in (*paths, *further)):
        return None
    lines, last = ([f"{path.name} {known_sha256(path)}\n" for path in each] for each in (paths, further))
    return _digest("".join([*sorted(lines), *last]))


def fingerprint_of(model: Model, component: str) -> str | None:
    """Hash what a component's network is made from: files, and code; None if a file is not here.

    That is its entry in the model's component_files, if there is one, else all fingerprint_files. Of the file
    with the class that has `build` only the code counts that `build` can reach; all of it where a class that
    inherits from that one lies there too, as it may have other values of what `build` uses.
    """
    sources = getattr(model, "component_files", {}).get(component, model.fingerprint_files)
    kinds = type(model).__mro__
    maker = next((kind for kind in kinds if "build" in vars(kind)), None)
    heirs = (
        [kind for kind in kinds[: kinds.index(maker)] if kind.__module__ == maker.__module__] if maker else []
    )
    home = getattr(sys.modules.get(getattr(maker, "__module__", "")), "__file__", None)
    files, code = [], {}
    for source in sources:
        path = Path(inspect.getfile(source) if callable(source) else source)
        if callable(source):
            code[f"{path.name} {source.__name__}"] = reached_code(path, source.__name__)
        elif home and not heirs and path.is_file() and path.samefile(home):
            code[path.name] = reached_code(path, "build", maker.__name__)
        else:
            files.append(path)
    adapters = getattr(model, "lora_files", ()) if merged(model, component) else ()
    weights = fingerprint(files, adapters)
    return _digest(json.dumps([weights, code], sort_keys=True)) if weights and code else weights


@contextmanager
def writing(folder: Path, label: Label, built_from: Mapping[str, Field]) -> Iterator[Draft]:
    """Write an artifact: it appears whole, or after an error or an interruption not at all.

    Yields a draft whose path has the final name, in a folder of its own that may hold further files.
    OSError if the disk is full or not writable.
    """
    stem = f"{label.component}-{label.precision}-{key(built_from)}"
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    staging = Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder))
    try:
        draft = Draft(staging / f"{stem}{label.suffix}")
        yield draft
        files = sorted(path for path in staging.iterdir())
        manifest = {
            "component": label.component,
            "precision": label.precision,
            "file": draft.path.name,
            "files": {path.name: file_sha256(path) for path in files},
            "built_from": built_from,
            "facts": {"bytes": sum(path.stat().st_size for path in files), **draft.facts},
            "built_at": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        }
        manifest_path = staging / f"{draft.path.name}.json"
        manifest_path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        for path in [*files, manifest_path]:
            sync(path)
        with locked(folder):  # else a file of one build might get the manifest of another
            (folder / manifest_path.name).unlink(missing_ok=True)  # none while the files are replaced
            for path in [*files, manifest_path]:
                os.replace(path, folder / path.name)
            sync(folder)
        draft.artifact = Artifact(folder / draft.path.name, _plain(manifest))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def find(folder: Path, label: Label, expected: Mapping[str, Field], command: str) -> Artifact:
    """Find the newest intact artifact of that label whose manifest has all expected fields.

    expected: fields of built_from as they are here; those that cannot be known here are left out. EngineError
    if there is none, StaleArtifact if all differ: both end with the command that builds it.
    """
    try:
        return _find(folder, label, expected, command)
    except EngineError:
        with suppress(OSError), locked(folder):  # another process may just have been writing it anew
            return _find(folder, label, expected, command)
        raise


def _find(folder: Path, label: Label, expected: Mapping[str, Field], command: str) -> Artifact:
    found = sorted(_manifests(folder, label), key=lambda each: each.manifest["built_at"], reverse=True)
    if not found:
        raise EngineError(f"no {label} in {folder}; run: {command}")
    refusals = []
    for artifact in found:
        differing = differences(expected, artifact.manifest["built_from"]) or _changed_files(artifact)
        if not differing:
            return artifact
        refusals.append(f"{artifact.path.name} does not fit: {'; '.join(differing)}")
    raise StaleArtifact("\n".join([refusals[0], f"run: {command}"]))


def find_onnx(
    folder: Path, model: Model, component: str, precision: str, opset: int | None = None
) -> Artifact:
    """Find the ONNX artifact of a component of this model as it is now; EngineError if none fits.

    opset: the only one that will do, None for any. Weights are compared where the model's sources are at
    hand; a submission may come without them.
    """
    expected = {"component": component, "loras": merged(model, component)}
    expected["spec"] = model.components[component].described()
    weights = fingerprint_of(model, component)
    if weights:
        expected["weights"] = weights
    command = f"python export_onnx.py --component {component} --precision {precision}"
    if opset is not None:
        expected["opset"] = opset
        command += f" --opset {opset}"
    command += " (same --generator)"
    return find(folder, Label(component, precision, ".onnx"), expected, command)


def check_agreement(
    spec: ComponentSpec, path: Path, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """Raise EngineError unless a file's inputs and outputs, dtypes by name, are the component's."""
    for kind, found, tensors in (("inputs", inputs, spec.inputs), ("outputs", outputs, spec.outputs)):
        wanted = {tensor.name: tensor.dtype for tensor in tensors}
        if dict(found) != wanted:
            raise EngineError(f"{path} is not a {spec.name}: its {kind} are {dict(found)}, expected {wanted}")


def built_files(engines: Mapping[str, Engine]) -> dict[str, dict[str, str | float | None]]:
    """Report, for each component whose engine runs a built file, its "file" and the "seconds" of building it.

    The seconds are its own: not those of the graph that a TensorRT engine or an 8-bit graph was built from.
    """
    found = {}
    for component, path in ((component, engine.path) for component, engine in engines.items()):
        if path:
            facts = json.loads(path.with_name(f"{path.name}.json").read_text())["facts"]
            found[component] = {"file": path.name, "seconds": facts.get("seconds")}
    return found


def differences(
    expected: Mapping[str, Field], built_from: Mapping[str, Field], within: str = "", built: str = "built"
) -> list[str]:
    """Write a sentence for each expected field that differed when the artifact was built, or made."""
    sentences = []
    for name, value in expected.items():
        full, was = f"{within}{name}", built_from.get(name)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            sentences += differences(value, was, f"{full}.", built)
        elif _plain(value) != was:
            sentences.append(f"{full} was {_short(was)} when it was {built}, is {_short(value)} here")
    return sentences


def _manifests(folder: Path, label: Label) -> Iterator[Artifact]:
    for path in folder.glob(f"{label.component}-{label.precision}-????????{label.suffix}.json"):
        try:
            manifest = json.loads(path.read_text())
            for name, kind in (("built_from", dict), ("files", dict), ("facts", dict), ("built_at", str)):
                if not isinstance(manifest[name], kind):
                    raise TypeError(f"{name} is {_short(manifest[name])}")
            if nameless := [name for name in manifest["files"] if not Path(name).name]:
                raise ValueError(f"files has a name that is none: {nameless[0]!r}")
            yield Artifact(folder / Path(manifest["file"]).name, manifest)
        except FileNotFoundError:  # it is being replaced
            continue
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            reason = f"{path} is no manifest of ours ({error!r}); delete it and build again"
            raise StaleArtifact(reason) from error


def _changed_files(artifact: Artifact) -> list[str]:
    sentences = []
    if artifact.path.name not in artifact.manifest["files"]:
        sentences.append(f"its manifest has no hash of {artifact.path.name}")
    for name, sha256 in artifact.manifest["files"].items():
        path = artifact.path.with_name(Path(name).name)
        if not path.is_file():
            sentences.append(f"{name} is missing")
        elif known_sha256(path) != sha256:
            sentences.append(f"the bytes of {name} changed since it was built")
    return sentences


def _sweep(folder: Path) -> None:
    """Remove what killed builds have left a day ago or longer; younger ones may still be at work."""
    for path in folder.glob(f"{DRAFT}*"):
        with suppress(FileNotFoundError):  # its build has just ended
            if time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Field) -> Field:
    """Convert a value to what JSON reads back."""
    return json.loads(json.dumps(value))


def _short(value: Field) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
