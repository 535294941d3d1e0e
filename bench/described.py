"""Read the description of an ONNX graph that judges, and start it only if its file is the one described."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from engines.artifact import file_sha256
from engines.errors import EngineError, unknown

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto
    from onnxruntime import InferenceSession

LARGEST = 16_384  # pixels of a side
KNOWN = {
    "fit": ("stretch", "pad"),
    "resize": ("box", "bilinear", "bicubic"),
    "layout": ("NHWC", "NCHW"),
    "dtype": ("uint8", "float32"),
}
Description = TypeVar("Description", bound="Described")


class ExtractorError(EngineError):
    """An error: an extractor or a pose model cannot be had or cannot be trusted; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """What every description says of its graph. size: width and height of the pictures that it takes.

    fit, resize: how pictures are brought to it. mean, std: for float32 input, of pixels from 0 to 1.
    """

    name: str
    onnx: str
    sha256: str
    kind: str
    size: tuple[int, int]
    input: str
    licence: str
    source: str
    fit: str = "stretch"
    resize: str = "bicubic"
    layout: str = "NHWC"
    dtype: str = "uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST


def _are(value: object, each: Callable[[object], bool], count: int | None = None) -> bool:
    return isinstance(value, list) and all(map(each, value)) and count in (None, len(value))


# What JSON may have for a field of each type, and that in words.
FORMS: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (_is_text, "a text"),
    "str | None": (lambda value: value is None or _is_text(value), "a text"),
    "float": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "tuple[int, int]": (lambda value: _are(value, _is_side, 2), f"two whole numbers from 1 to {LARGEST}"),
    "tuple[float, float, float]": (lambda value: _are(value, _is_number, 3), "three numbers"),
    "tuple[str, ...]": (lambda value: _are(value, _is_text), "a list of texts"),
}


def _check_forms(found: dict[str, object], kind: type[Description]) -> None:
    """Raise ValueError for a key that a description does not have, or a value of another form."""
    types = {field.name: field.type for field in fields(kind)}
    for key, value in found.items():
        if key not in types:
            raise ValueError(unknown("key", key, list(types)))
        fits, words = FORMS[types[key]]
        if not fits(value):
            raise ValueError(f"{key} is {json.dumps(value)[:80]}; expected {words}")
    if 0 in found.get("std", ()):
        raise ValueError("std has a 0, by which pixels cannot be divided")


def check_known(spec: Described, known: dict[str, tuple[str, ...]]) -> None:
    """Raise ValueError if a field of a description is not among those known."""
    for name, values in known.items():
        if getattr(spec, name) not in values:
            raise ValueError(f"{name} is {getattr(spec, name)!r}; known: {', '.join(values)}")


def find_description(name: str, folder: Path, what: str) -> Path:
    """Return the JSON file of that name in a folder, or at that path. ExtractorError."""
    path = Path(name) if name.endswith(".json") else folder / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.json")))
        raise ExtractorError(f"no {what} {name!r}; there are {known}, or give the path of a JSON file")
    return path


def read_description(path: Path, kind: type[Description], what: str) -> Description:
    """Read a JSON file as a description, a dataclass. ExtractorError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _check_forms(found, kind)
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in found.items()})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ExtractorError(f"{path} does not describe {what}: {error}") from error


def described_file(path: Path, name: str, sha256: str) -> Path:
    """Find the file of that name beside a description; ExtractorError unless it is the one described."""
    graph = path.parent / Path(name).name
    if not graph.is_file():
        raise ExtractorError(f"{path} describes {graph.name}, which is not beside it; export it again")
    found = file_sha256(graph)
    if found != sha256:
        differ = f"SHA-256 {found[:12]}.., expected {sha256[:12]}.."
        raise ExtractorError(f"{graph} is not the file that {path.name} describes: {differ}")
    return graph


def start_session(graph: Path) -> InferenceSession:
    """Start a graph on the processor. ExtractorError: it cannot be, or weights of it lie in another file."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        raise ExtractorError(f"onnxruntime cannot load {graph}: {str(error).splitlines()[0]}") from error
    _check_one_file(graph)
    return session


def _check_one_file(graph: Path) -> None:
    """Raise ExtractorError unless a graph holds all its weights, which its SHA-256 then covers."""
    import onnx

    if _has_external(onnx.load(graph, load_external_data=False)):
        how = "its SHA-256 does not cover them; save it as one file (onnx.load, then onnx.save)"
        raise ExtractorError(f"{graph} has weights in another file: {how}")


def _has_external(message: ModelProto | TensorProto) -> bool:
    """Return whether a tensor in a graph, or in a message of it, has its data in another file."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        return message.data_location == TensorProto.EXTERNAL
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            repeated = not hasattr(value, "ListFields")
            if any(map(_has_external, value if repeated else [value])):
                return True
    return False


def run_graph(
    session: InferenceSession, outputs: list[str] | None, feeds: dict[str, np.ndarray], name: str
) -> list[np.ndarray]:
    """Run a graph; its outputs, of one dimension at least.

    ExtractorError: it takes or gives something else than its description says.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        found = session.run(outputs, feeds)
    except (state.InvalidArgument, state.Fail, state.RuntimeException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExtractorError(f"{name}: its graph cannot be run as its description says: {reason}") from error
    if not all(isinstance(each, np.ndarray) and each.ndim and each.dtype.kind in "fiu" for each in found):
        raise ExtractorError(f"{name}: its graph gives something else than arrays of numbers")
    return found


def fitted(frame: np.ndarray, spec: Described) -> np.ndarray:
    """Return the frame (H, W, 3) at a graph's size: stretched, or whole with black around it."""
    from PIL import Image

    width, height = spec.size
    method = Image.Resampling[spec.resize.upper()]
    picture = Image.fromarray(frame)
    if spec.fit == "stretch":
        return np.asarray(picture.resize((width, height), method))
    scale = min(width / picture.width, height / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture.resize(inner, method), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return np.asarray(canvas)


def to_pixels(pictures: Sequence[np.ndarray], spec: Described) -> np.ndarray:
    """Return pictures (H, W, 3) uint8 of one size as the graph takes them."""
    pixels = np.stack(pictures)
    if spec.dtype == "float32":
        pixels = (pixels.astype(np.float32) / 255 - spec.mean) / np.array(spec.std)
        pixels = pixels.astype(np.float32)
    if spec.layout == "NCHW":
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return pixels
