"""Fuzz what reads the files of users: each target makes a good file, which is spoilt again and again."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from engines.artifact import Label, find, writing
from engines.errors import FILE_ERRORS, VivaceError
from generators.checkpoint import ARCHIVE_ERRORS, open_checkpoint
from lab.faults.mutations import MUTATIONS, mutated, reworded
from lab.faults.numpy_generator import NumpyGenerator
from lab.faults.whole_runs import make_sources
from pipeline.batch.batch import Jobs
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import MANIFEST, RunFolder
from pipeline.recipe import load_recipe
from pipeline.video.reader import VideoReader, read_image
from submit.profile import PROFILES, load_profile

SLOW = 20.0  # seconds after which an input counts as a hang
LABEL, FROM = Label("denoise", "fp32", ".onnx"), {"component": "denoise", "spec": {"inputs": {"x": [1, "n"]}}}
RECIPE = """backend = "openvino"
precision = "fp32,denoise=fp16"
overlap = 3
preset = "fast"
[steps]
actions = "FS"
corrections = [[0.1, -0.2, 0.0, 0.0]]
level_corrections = [[0.0, 0.0, 0.0, 0.0, 0.5]]
overlaps = [2]
[guard]
videos = 3
changes = [0.0]
constants = ["pose"]
means = [[0.1, 0.2]]
spreads = [[0.1, 0.2]]
limits = [3.0]
[about]
note = "a note"
"""
TECHNIQUE = '[technique]\nname = "uniform-skip"\nevery = 3\n'


@dataclass
class Tally:
    """How many inputs a target was given, and how many it refused.

    bugs: the files of those that raised another error. hangs: of those that took more than SLOW seconds.
    slowest: the seconds of the slowest.
    """

    tried: int = 0
    refused: int = 0
    bugs: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    slowest: float = 0.0


def fuzz(
    targets: Sequence[str], seconds: float, work: Path, seed: int, say: Callable[[str], None]
) -> dict[str, Tally]:
    """Give the targets spoilt files in turn for so many seconds.

    Only a VivaceError may be raised, or MemoryError. The present input is in work/now, so that one that ends
    the process stays there; others that fail are kept in work/bugs, with the traceback.
    """
    (bugs := work / "bugs").mkdir(parents=True)
    draws, found = random.Random(seed), {name: Tally() for name in targets}
    seeds = {name: TARGETS[name][0](work / "seeds" / name) for name in targets}
    for name, sources in seeds.items():
        for source in sources:  # as they are, they must be taken
            TARGETS[name][1](source, _emptied(work / "now" / name), bytes)
    until, spoken = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < until:
        for name in targets:
            tally, source = found[name], draws.choice(seeds[name])
            now = _emptied(work / "now" / name)
            began, why = time.monotonic(), ""
            try:
                TARGETS[name][1](source, now, partial(_spoilt, draws=draws))
            except (VivaceError, MemoryError):
                tally.refused += 1
            except (*FILE_ERRORS, *ARCHIVE_ERRORS):
                why = traceback.format_exc()
            took = time.monotonic() - began
            tally.tried, tally.slowest = tally.tried + 1, round(max(tally.slowest, took), 2)
            if why or took > SLOW:
                kept = bugs / f"{name}-{tally.tried}"
                shutil.copytree(now, kept, symlinks=True)
                (kept / "why.txt").write_text(why or f"{took:.1f} s")
                (tally.bugs if why else tally.hangs).append(str(kept))
                say(f"{kept}: {(why or 'slow').strip().splitlines()[-1][:200]}")
        if time.monotonic() - spoken > 60:
            spoken = time.monotonic()
            say(f"{sum(tally.tried for tally in found.values())} tried, {until - spoken:.0f} s left")
    return found


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _spoilt(content: bytes, draws: random.Random) -> bytes:
    """Spoil a file's bytes or, if it looks like text, its words."""
    if b"\0" not in content and draws.random() < 0.8:
        return reworded(content, draws)
    return bytes(mutated(content, draws.choice(MUTATIONS), draws))


Spoil = Callable[[bytes], bytes]


def _put(source: Path, folder: Path, spoil: Spoil, name: str | None = None) -> Path:
    path = folder / (name or source.name)
    path.write_bytes(spoil(source.read_bytes()))
    return path


def _texts(folder: Path, **texts: str) -> list[Path]:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def _read_video(source: Path, now: Path, spoil: Spoil) -> None:
    sum(1 for _ in VideoReader(_put(source, now, spoil)))


def _read_picture(source: Path, now: Path, spoil: Spoil) -> None:
    read_image(_put(source, now, spoil))


def _pairs_seeds(folder: Path) -> list[Path]:
    rows = "".join(f"v{n},a.mp4,a.png,{n}\n" for n in range(8))
    quoted = '"id","video","image"\n"a","a.mp4",a.png\n'
    return _texts(folder, pairs__csv=f"id,video,image,seed\n{rows}", quoted__csv=quoted)


def _read_pairs(source: Path, now: Path, spoil: Spoil) -> None:
    for kind, name in (("videos", "a.mp4"), ("images", "a.png")):
        (now / kind).mkdir()
        (now / kind / name).write_bytes(b"x")
    _put(source, now, spoil, "pairs.csv")
    find_requests(now)


def _recipe_seeds(folder: Path) -> list[Path]:
    colours = 'colours = "yuv420p(tv, bt709)"\n'
    return _texts(folder, plan__toml=RECIPE, technique__toml=TECHNIQUE, colours__toml=colours)


def _read_recipe(source: Path, now: Path, spoil: Spoil) -> None:
    recipe = load_recipe(_put(source, now, spoil))
    recipe.adapt(NumpyGenerator())
    recipe.to_toml()


def _profile_seeds(folder: Path) -> list[Path]:
    texts = {f"{each.stem}__toml": each.read_text(encoding="utf-8") for each in PROFILES.glob("*.toml")}
    return _texts(folder, **texts, like__toml='like = "cpu"\nmax_mb = 40\nglibc = "2.28"\n')


def _read_profile(source: Path, now: Path, spoil: Spoil) -> None:
    profile = load_profile(str(_put(source, now, spoil)))
    assert profile.version and profile.platforms and (profile.why_not_here() or True)


X = hashlib.sha256(b"x").hexdigest()
IDENTITY = {"generator": "numpy", "device": "cpu", "precision": {"denoise": "fp32"}, "built": {}}


def _manifest_seeds(folder: Path) -> list[Path]:
    line = {
        "id": "a",
        "video": "a.mp4",
        "image": "a.png",
        "seed": 42,
        **IDENTITY,
        "status": "done",
        "output": "a.mp4",
        "fps": "24",
        "frames": 3,
        "output_sha256": X,
        "video_sha256": X,
        "image_sha256": X,
        "notes": [],
        "total_seconds": 0.5,
    }
    failed = {"id": "c", "status": "failed", "error": "b.mp4: is damaged"}
    return _texts(
        folder,
        manifest__jsonl="".join(json.dumps(each) + "\n" for each in (line, {**line, "id": "b"}, failed)),
    )


def _read_manifest(source: Path, now: Path, spoil: Spoil) -> None:
    for kind, names in (("videos", ("a.mp4", "b.mp4")), ("images", ("p.png",)), ("out", ("a.mp4", "b.mp4"))):
        (now / kind).mkdir()
        for name in names:
            (now / kind / name).write_bytes(b"x")
    _put(source, now / "out", spoil, MANIFEST)
    with RunFolder(now / "out") as folder:
        Jobs(find_requests(now), folder, IDENTITY, lambda text: None).conclude()


def _artifact_seeds(folder: Path) -> list[Path]:
    with writing(folder, LABEL, FROM) as draft:
        draft.path.write_bytes(b"graph")
    return sorted(folder.glob("*.json"))


def _read_artifact(source: Path, now: Path, spoil: Spoil) -> None:
    (now / source.stem).write_bytes(b"graph")
    _put(source, now, spoil)
    find(now, LABEL, FROM, "python export_onnx.py")


def _checkpoint_seeds(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    tensors = {f"layer.{n}": torch.full((2, 3), float(n)) for n in range(4)}
    save_file(tensors, folder / "a.safetensors")
    torch.save({"state_dict": tensors}, folder / "b.pt")
    torch.save(tensors, folder / "c.pth", _use_new_zipfile_serialization=False)
    index = {"metadata": {"total_size": 96}, "weight_map": dict.fromkeys(tensors, "a.safetensors")}
    (folder / "d.safetensors.index.json").write_text(json.dumps(index))
    return sorted(folder.iterdir())


def _read_checkpoint(source: Path, now: Path, spoil: Spoil) -> None:
    if source.name.endswith(".json"):
        shutil.copy(source.with_name("a.safetensors"), now)
    if source.suffix == ".safetensors":  # the header's words too, with their new length
        content = source.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = spoil(content[8:end])
        path = now / source.name
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    else:
        path = _put(source, now, spoil)
    for tensor in open_checkpoint(path).tensors().values():
        np.asarray(tensor.float().sum())


def _media(place: int) -> Callable[[Path], list[Path]]:
    return lambda folder: make_sources(folder)[place]


# By name, what makes good files in a folder, and what reads a spoilt one.
TARGETS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path, Path, Spoil], None]]] = {
    "video": (_media(0), _read_video),
    "picture": (_media(1), _read_picture),
    "pairs": (_pairs_seeds, _read_pairs),
    "recipe": (_recipe_seeds, _read_recipe),
    "profile": (_profile_seeds, _read_profile),
    "manifest": (_manifest_seeds, _read_manifest),
    "artifact": (_artifact_seeds, _read_artifact),
    "checkpoint": (_checkpoint_seeds, _read_checkpoint),
}
