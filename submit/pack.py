"""Make submit.zip: infer.py and all that it needs on the target machine, and nothing else."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engines.artifact import built_folder, file_sha256
from engines.load import starts_from
from engines.precision import choose_precisions
from generators.adapters import MARK, split_name
from generators.contract import BUNDLED, FROM_FOLDER, Generator, load_generator
from pipeline.recipe import Recipe
from pipeline.submission import FILE as MANIFEST
from submit.archive import write_archive
from submit.errors import SubmitError
from submit.imports import needed_files, needed_packages, technique_files, wrapper_files
from submit.model_files import BUILT, ModelFiles, model_files
from submit.packages import WHEELS, Pin, choose, download
from submit.pickles import is_pickle
from submit.profile import Profile

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("infer.py", "export_onnx.py", "build_trt.py")
ENTRY, RECIPE, REQUIREMENTS = SCRIPTS[0], "recipe.toml", "requirements.txt"
CONVERSION = "requirements-convert.txt"
GENERATOR = "generator"
SCHEMA = 1
FFMPEG = "carries the ffmpeg program, GPL-3.0: https://ffmpeg.org, run as a separate program"


@dataclass(frozen=True)
class Packed:
    """A finished archive: its SHA-256, its size in bytes, and what its manifest says."""

    path: Path
    sha256: str
    size: int
    manifest: dict


def pack(recipe: Recipe, generator_name: str, profile: Profile, out: Path, wheels: bool = False) -> Packed:
    """Write the archive. The same inputs give the same bytes.

    wheels: with all packages, so that nothing is downloaded there. SubmitError, EngineError (a built file is
    missing), RecipeError, GeneratorError, PrecisionError: why it cannot be; OSError if it cannot be written.
    """
    if recipe.backend == "auto":
        raise SubmitError("the recipe's backend is auto: what runs there could not be proved; name one")
    if generator_name.partition("=")[0] in FROM_FOLDER:
        raise SubmitError(
            f"{generator_name} has its folder here and not there; write a file beside that folder whose "
            "class is derived from this one's and names it, and pack that: docs/wrapping.md"
        )
    generator = recipe.adapt(load_generator(generator_name))
    precisions = choose_precisions(recipe.precision, generator.components)
    built = model_files(generator, recipe.backend, precisions, built_folder(generator.name), profile)
    name, own = generator_files(generator_name, generator, weights=starts_from(recipe.backend) is None)
    code = {path: ROOT / path for path in needed_files(ROOT, SCRIPTS)}
    files: dict[str, Path | bytes] = {**code, **own, **built.files, "LICENSE": ROOT / "LICENSE"}
    if recipe.technique:  # its file is among the code; what it was fitted to is not
        fitted = (path for path in generator.technique_files if path.suffix == ".json")
        files |= {f"{BUILT}/{generator.name}/{path.name}": path for path in fitted}
    with ExitStack() as stack:
        imports = _imports(files, name, recipe, profile)
        pins = choose(imports, profile, ROOT)
        if wheels:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            pins = download(pins, profile, folder)
            files |= {f"{WHEELS}/{path.name}": path for path in folder.iterdir()}
        files[REQUIREMENTS] = _requirements(pins, profile, wheels)
        files[CONVERSION] = _conversion(built.tools)
        files[RECIPE] = recipe.to_toml().encode()
        manifest = {
            "schema": SCHEMA,
            "what": "python -m submit pack",
            "target": profile.name,
            "generator": generator.name,
            "recipe": recipe.name,
            "backend": recipe.backend,
            "precision": precisions,
            "components": sorted(precisions),
            "entry": _entry(name, profile, built),
            "build": {"components": built.build, "seconds_at_a_guess": round(built.build_seconds)},
            "tools": _tools(built.tools, profile),
            "licences": _licences(pins, name),
            "files": {each: _sha256(content) for each, content in sorted(files.items())},
        }
        files[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        sha256 = write_archive(out, files)
    return Packed(out, sha256, out.stat().st_size, manifest)


def generator_files(name: str, generator: Generator, weights: bool) -> tuple[str, dict[str, Path]]:
    """Return the generator's name in the archive, and its files there: its own, with weights its sources."""
    found: dict[str, Path] = {}
    (name, loras), place = split_name(name), None
    if name not in BUNDLED:
        path, _, attribute = name.rpartition(":")
        place = Path(path).resolve()
        sources = map(Path.resolve, generator.fingerprint_files)
        near, ours = wrapper_files(ROOT, place, [path for path in sources if path.suffix == ".py"])
        found |= {_archived(path, place): path for path in near} | {each: ROOT / each for each in ours}
        name = f"{_archived(place, place)}:{attribute}"
    settings = (path for path in getattr(generator, "settings_files", ()) if path.is_file())
    for source in map(Path.resolve, [*settings, *generator.fingerprint_files] if weights else settings):
        found[_archived(source, place or Path(inspect.getfile(type(generator))))] = source
    for source in found.values():
        if is_pickle(source):
            raise SubmitError(
                f"{source} is a pickle, which can run any code, and an archive with one is refused; save its "
                "tensors as safetensors, and have the generator read and name that file"
            )
    names = {source.resolve(): each for each, source in found.items()}  # without weights nothing of them
    adapters = [f"{names.get(each.path.resolve(), each.path.name)}:{each.scale:g}" for each in loras]
    return MARK.join([name, *adapters]), found


def _archived(path: Path, generator: Path) -> str:
    """Name a file in the archive: one of ours, or one that lies at or below its generator's."""
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix()
    if path.is_relative_to(generator.parent):
        return f"{GENERATOR}/{path.relative_to(generator.parent).as_posix()}"
    raise SubmitError(f"{path} is a source of the generator, but does not lie beside {generator}")


def _imports(
    files: Mapping[str, Path | bytes], generator: str, recipe: Recipe, profile: Profile
) -> Iterable[str]:
    """Find what the packed code imports when it runs, as check S07 finds it in the archive."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            if name.endswith(".py"):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        generator = split_name(generator)[0]
        own = None if generator in BUNDLED else generator.partition(":")[0]
        starts = [ENTRY, *technique_files(recipe)]
        needed = needed_packages(Path(folder), starts, recipe.backend, own, profile.version)
        known = {*profile.preinstalled, *profile.as_given, *profile.packages}
        for package in needed.keys() - known - importlib.metadata.packages_distributions().keys():
            if own and needed[package].startswith(f"{Path(own).parent.as_posix()}/"):
                raise SubmitError(
                    f"{needed[package]} imports {package}, which is no installed package: if it is code of "
                    f"your own, let it lie beside {Path(own).name} or name its file in fingerprint_files"
                )
        return needed


def _entry(generator: str, profile: Profile, built: ModelFiles) -> dict:
    """Return the defaults of infer.py there, which pipeline/submission.py reads.

    restart: a grader may run it into one folder again, and means it to make what it is given.
    """
    plain = {"generator": generator, "recipe": RECIPE, "data": "data", "out": "out", "restart": True}
    return {**plain, **profile.entry, "device": profile.device, "build": bool(built.build)}


def _requirements(pins: Iterable[Pin], profile: Profile, wheels: bool) -> bytes:
    head = [f"# What infer.py needs, for Python {profile.python}: pip install -r {REQUIREMENTS}"]
    if wheels:
        head += ["--no-index", f"--find-links {WHEELS}"]
    elif profile.index:
        head.append(f"--extra-index-url {profile.index}")
    return "\n".join([*head, *map(str, pins), ""]).encode()


def _conversion(tools: Mapping[str, str]) -> bytes:
    """Write down what made the model files; their makers also need the weights, which stay at home."""
    lines = [f"{name}=={version.partition('+')[0]}" for name, version in sorted(tools.items())
             if name not in ("flavour", "version")]  # fmt: skip
    return "\n".join(["# What export_onnx.py ran with when it made the graphs.", *lines, ""]).encode()


def _tools(built: Mapping[str, str], profile: Profile) -> dict[str, str]:
    found = {"python": profile.python, "pip": importlib.metadata.version("pip"), **built}
    return dict(sorted(found.items()))


def _licences(pins: Iterable[Pin], generator: str) -> dict[str, str]:
    found = {pin.name: pin.licence or "unknown" for pin in pins}
    found |= {name: f"{text}; {FFMPEG}" for name, text in found.items() if name == "imageio-ffmpeg"}
    ours = {"Vivace": "Apache-2.0"}
    generator = split_name(generator)[0]
    if generator in BUNDLED:
        ours[f"{generator}'s weights"] = "Apache-2.0"
    return ours | found


def _sha256(content: Path | bytes) -> str:
    return file_sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
