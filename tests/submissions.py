"""Archives for the tests of submit/: a whole one of the tiny presenter, and ways to spoil it."""

import hashlib
import importlib.metadata
import json
import zipfile
from pathlib import Path

from pipeline.recipe import Recipe
from submit.archive import MODE, STAMP, UNIX, write_archive
from submit.pack import pack
from submit.profile import load_profile

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "pillow", "imageio-ffmpeg", "tqdm", "openvino", "openvino-telemetry")
OPENVINO = Recipe("quick", backend="openvino")


def write_wheel(folder, name, version, requires=()):
    """A wheel with nothing but metadata in it, for pip to resolve and install without a network."""
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "License: MIT"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in {
            "METADATA": "\n".join(lines) + "\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            wheel.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{file}", STAMP), text)
    return folder


def write_wheels(folder):
    """A wheel for each package that a run on OpenVINO needs, in the versions installed here."""
    for name in PACKAGES:
        requires = ["openvino-telemetry>=2023.2"] if name == "openvino" else []
        write_wheel(folder, name, importlib.metadata.version(name), requires)
    return folder


def only_wheels(monkeypatch, folder):
    """Have pip take packages from a folder and from nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def pack_tiny(tiny_file, out, recipe=OPENVINO, target="cpu", **options):
    """The tiny presenter's archive."""
    return pack(recipe, f"{tiny_file}:Tiny", load_profile(target), out, **options)


def contents(path):
    """Bytes by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(path, target, changed, listed=True):
    """The archive with other files: bytes, a function of the bytes there were, or None to leave one out.

    listed: with a manifest that has the new files' hashes, as one that was packed so.
    """
    files = contents(path)
    for name, new in changed.items():
        if new is None:
            del files[name]
        else:
            files[name] = new(files[name]) if callable(new) else new
    if listed and "submission.json" in files:
        manifest = json.loads(files.pop("submission.json"))
        manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files["submission.json"] = json.dumps(manifest).encode()
    write_archive(target, files)
    return target


def raw(path, target, add):
    """The archive with what add(zipfile) writes behind it, whatever that is."""
    target.write_bytes(path.read_bytes())
    with zipfile.ZipFile(target, "a") as archive:
        add(archive)
    return target


def entry(name, mode=MODE, stamp=STAMP, method=zipfile.ZIP_DEFLATED):
    """An entry of that name."""
    found = zipfile.ZipInfo(name, stamp)
    found.create_system, found.external_attr, found.compress_type = UNIX, mode << 16, method
    return found
