"""Say what to do next: which recipe this machine runs, and the commands from here to a judged run.

Files alone are looked at; nothing is loaded and nothing is started.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.artifact import built_folder
from engines.cli import ROOT
from engines.errors import entries_of
from engines.load import native_precision

NEEDED = ("torch", "onnx", "onnxscript", "imageio-ffmpeg")  # to export graphs, and for videos
OUT = "out/fast"
RECIPES = "optimize/recipes"


@dataclass(frozen=True)
class Step:
    """A command, and why it is the next."""

    command: str
    why: str


@dataclass(frozen=True)
class Advice:
    """A recipe for a machine, and what it starts from: nothing, graphs or engines."""

    recipe: str | None
    why: str
    starts_from: str | None


def recipe_for(backends: Mapping[str, Mapping[str, str | None]]) -> Advice:
    """Choose the recipe for what runs here. backends: None, or why not, by backend and device."""
    if backends["tensorrt"]["cuda"] is None:
        return Advice("gpu-fp16.toml", "TensorRT in fp16; not measured by us: judge what it makes", ".engine")
    if backends["openvino"]["cpu"] is None:
        precision = native_precision("openvino", "cpu")
        return Advice("fast.toml", f"OpenVINO in {precision}, few steps; for the bundled generator", ".onnx")
    if backends["onnxruntime"]["cpu"] is None:
        return Advice(
            "cpu-steps.toml", "few steps; with --backend onnxruntime, as OpenVINO is missing", ".onnx"
        )
    return Advice(None, "torch alone runs here; install requirements.txt for faster engines", None)


def next_steps(found: Mapping, data: Path) -> list[Step]:
    """Return the commands that are left, the next first, until a judged run of a recipe.

    found: what engines.doctor.examine returns.
    """
    lacking = [name for name in NEEDED if name not in found["packages"]]
    if lacking:
        return [Step("pip install -r requirements.txt", f"{', '.join(lacking)} not installed")]
    choice = recipe_for(found["backends"])
    where = shlex.quote(str(data).removeprefix(f"{ROOT}/"))
    missing = _missing_inputs(data)
    if missing:
        return [Step("make demo", f"{missing}; data/sample, which the demo takes, shows one")]
    return [
        *_files(choice),
        *_base_videos(data, where),
        Step(_run(choice, where, found), f"by {choice.recipe or 'the base model'}: {choice.why}"),
        Step(f"python -m bench --data {where} --candidate {OUT} --out out/report", "the same videos still?"),
        Step(f"python tune.py --data {where} --out fast.toml", "a recipe of your own: the fastest alike"),
    ]  # fmt: skip


def _missing_inputs(data: Path) -> str | None:
    """Say what the data folder lacks; None if it has videos and pictures, or a list of them."""
    if not data.is_dir():
        return f"there is no data folder {data}; it needs videos/ and images/ in it"
    for part, what in (("videos", "skeleton videos"), ("images", "pictures of the persons")):
        folder = data / part
        if not (folder.is_dir() and any(_files_in(folder))) and not (data / "pairs.csv").is_file():
            return f"{folder} holds none of the {what}"
    return None


def _files(choice: Advice) -> list[Step]:
    """Return what builds the files that the recipe starts from, where there are none of the kind."""
    folder, steps = built_folder("presenter"), []
    precision = "fp16" if choice.starts_from == ".engine" else "fp32"
    has = {suffix: any(folder.glob(f"*{suffix}")) for suffix in (".onnx", ".engine")}
    if choice.starts_from and not has[".onnx"] and not has[choice.starts_from]:
        steps.append(Step(f"python export_onnx.py --precision {precision}", f"no graphs in {folder} yet"))
    if choice.starts_from == ".engine" and not has[".engine"]:
        steps.append(Step(f"python build_trt.py --precision {precision}", f"no engines in {folder} yet"))
    return steps


def _base_videos(data: Path, where: str) -> list[Step]:
    outputs = data / "outputs"
    if outputs.is_dir() and any(_files_in(outputs)):
        return []
    return [
        Step(f"python infer.py --data {where} --out {where}/outputs", "the base model's videos, to judge by")
    ]


def _run(choice: Advice, where: str, found: Mapping) -> str:
    command = f"python infer.py --data {where} --out {OUT}"
    if choice.recipe:
        command += f" --recipe {RECIPES}/{choice.recipe}"
    if choice.starts_from == ".engine":
        return f"{command} --device cuda"
    return command if found["backends"]["openvino"]["cpu"] is None else f"{command} --backend onnxruntime"


def _files_in(folder: Path) -> list[Path]:
    return [
        path
        for path in entries_of(folder, "it should hold files")
        if path.is_file() and not path.name.startswith(".")
    ]
