"""Wheels that a bare machine lacks, in loads small enough to be carried: gathered here, joined there.

OUT/load-01, load-02, ... hold whole wheels and parts of large ones. Each has the list of all, wheels.json,
with their hashes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from engines.artifact import file_sha256
from engines.spec import EngineError
from engines.whole import whole

LIST = "wheels.json"
LOAD = 28  # MB: with a checkout of 30 MB beside it, below 60
# What a machine lacks that has torch, triton, onnxruntime for processors, transformers, safetensors, OpenCV.
PACKAGES = (
    "diffusers>=0.35,<1", "importlib-metadata", "zipp", "imageio-ffmpeg>=0.8",
    "tensorrt_rtx_cu13>=1.7,<1.8", "tensorrt_rtx_cu13_bindings>=1.7,<1.8", "tensorrt_rtx_cu13_libs>=1.7,<1.8",
    "onnxruntime-gpu>=1.23.2,<1.32",
)  # fmt: skip
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 24, 17)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]


@dataclass(frozen=True)
class Part:
    """A wheel, or a piece of it: its file, bytes and SHA-256."""

    file: str
    bytes: int
    sha256: str


def gather(python: str, out: Path, load: int, say: Callable[[str], None]) -> int:
    """Download PACKAGES for Linux and that Python, laid out in loads of so many bytes; how many loads.

    Only they themselves: the machine has what they need. The first loads have what everything needs, the last
    what only one backend does. EngineError: pip finds none, or OUT is not empty.
    """
    if out.is_dir() and any(out.iterdir()):
        raise EngineError(f"{out} is not empty; give another folder, or empty it")
    with TemporaryDirectory() as name:
        wheels: list[Path] = []
        for package in PACKAGES:
            wheels += _download(package, python, Path(name))
            say(f"{wheels[-1].name}: {wheels[-1].stat().st_size / 1e6:.1f} MB")
        return lay_out(wheels, out, load)


def lay_out(wheels: Sequence[Path], out: Path, load: int) -> int:
    """Put wheels into folders of `load` bytes, cut where a folder is full; how many folders."""
    listed: dict[str, dict] = {}
    loads, room = 0, 0
    for wheel in wheels:
        parts: list[Part] = []
        with wheel.open("rb") as file:
            while left := wheel.stat().st_size - file.tell():
                loads, room = (loads, room) if room else (loads + 1, load)
                whole = not parts and left <= room
                name = wheel.name if whole else f"{wheel.name}.{len(parts):03}"
                piece = file.read(room)
                parts.append(_written(out / f"load-{loads:02}" / name, piece))
                room -= len(piece)
        listed[wheel.name] = {"sha256": file_sha256(wheel), "parts": [vars(part) for part in parts]}
    for number in range(1, loads + 1):
        (out / f"load-{number:02}" / LIST).write_text(json.dumps(listed, indent=1) + "\n")
    return loads


def _written(path: Path, piece: bytes) -> Part:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(piece)
    return Part(path.name, len(piece), hashlib.sha256(piece).hexdigest())


def collect(brought: Path, kept: Path) -> dict[str, str]:
    """Keep the parts that were brought, join wheels that are whole, and check them.

    brought: a folder with LIST, or one of such folders. Returns by wheel what it lacks, "" for those that lie
    whole in `kept`. EngineError: a part is damaged.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for path in sorted(brought.rglob("*")):
        if path.is_file() and not (kept / path.name).is_file():
            shutil.copyfile(path, kept / path.name)
    if not (kept / LIST).is_file():
        raise EngineError(
            f"{brought} has no {LIST}; make it with: python -m bench gpu wheels --out {brought}"
        )
    listed = json.loads((kept / LIST).read_text(encoding="utf-8"))
    return {name: _joined(kept, name, entry) for name, entry in listed.items()}


def _joined(kept: Path, name: str, entry: dict) -> str:
    """Join a wheel from its parts, which go; what is missing, or nothing."""
    wheel, parts = kept / name, [Part(**part) for part in entry["parts"]]
    if not wheel.is_file():
        missing = [part.file for part in parts if not (kept / part.file).is_file()]
        if missing:
            return f"{len(missing)} of {len(parts)} parts, as {missing[0]}"
        with whole(wheel) as draft, draft.open("wb") as joined:
            for part in parts:
                _check(kept / part.file, part.sha256)
                joined.write((kept / part.file).read_bytes())
    _check(wheel, entry["sha256"])
    for part in parts:
        if part.file != name:
            (kept / part.file).unlink(missing_ok=True)
    return ""


def _check(path: Path, sha256: str) -> None:
    found = file_sha256(path)
    if found != sha256:
        path.unlink()
        raise EngineError(f"{path.name} is damaged ({found[:8]}, expected {sha256[:8]}); bring it again")


def _download(package: str, python: str, folder: Path) -> list[Path]:
    """The wheel for the target; where there is only source, one made here, if it fits everywhere."""
    pip = [sys.executable, "-m", "pip"]
    quietly = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    wheel = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    wheel += [f"--platform={name}" for name in PLATFORMS]
    before = set(folder.glob("*.whl"))
    found = _run([*pip, "download", *quietly, *wheel, "--dest", str(folder), package])
    if found.returncode:
        found = _run([*pip, "wheel", *quietly, "--wheel-dir", str(folder), package])
    made = set(folder.glob("*.whl")) - before
    if found.returncode or not made:
        lines = found.stderr.strip().splitlines()
        raise EngineError(
            f"pip finds no {package} for Python {python}: {lines[-1] if lines else 'no reason'}"
        )
    target = f"cp{python.replace('.', '')}"
    wrong = [path.name for path in made if target not in path.name and "-py3-" not in path.name]
    if wrong:
        raise EngineError(f"{wrong[0]} was made for the Python here, not for {python}; run it with that one")
    return sorted(made)


def _run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
