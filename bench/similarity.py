"""Compute the cosine similarity of two videos by a named feature extractor: an ONNX graph, described."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.watch import Features, Watch
from engines.artifact import file_sha256
from engines.errors import EngineError, unknown

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

EXTRACTORS = Path(__file__).parent / "extractors"
# The self-test: two people apart, a picture from itself, noise and black from a picture. It finds out a
# network or a preprocessing to which everything looks alike, as many with random weights; not all of these.
SAME, OTHER = 0.999, 0.97
# Above 1: sums of 2048 products in float32 are wrong by up to some 1e-6, and ten times that is still noise.
ROUNDING = 1e-5
RESIZE = ("box", "bilinear", "bicubic")


class ExtractorError(EngineError):
    """An error: an extractor cannot be had or cannot be trusted; the text says why."""


@dataclass(frozen=True)
class Spec:
    """The content of an extractor's JSON file.

    kind: "frames" for a graph that takes single frames and gives a feature each; "clip" for one that takes
    all frames of a clip, two at least, and gives one vector, and with frames_output one for each frame too.
    pool: a second file, so that a clip can be of any length: the first graph then gives a row of numbers for
    each frame, from it and the one before it (itself for the first), and this one takes all rows. size: width
    and height of its input. mean, std: for float32 input, of pixels from 0 to 1.
    """

    name: str
    onnx: str
    sha256: str
    kind: str
    size: tuple[int, int]
    input: str
    output: str
    licence: str
    source: str
    fit: str = "stretch"
    resize: str = "bicubic"
    layout: str = "NHWC"
    dtype: str = "uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    frames_output: str | None = None
    pool: str | None = None
    pool_sha256: str | None = None

    @property
    def outputs(self) -> list[str]:
        """Names of the features: of a clip and of its frames, or of frames."""
        return [name for name in (self.output, self.frames_output) if name]

    def __post_init__(self) -> None:
        for name, known in {
            "kind": ("frames", "clip"),
            "fit": ("stretch", "pad"),
            "resize": RESIZE,
            "layout": ("NHWC", "NCHW"),
            "dtype": ("uint8", "float32"),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        if self.pool and self.kind != "clip":
            raise ValueError("pool goes with kind 'clip' only")


@dataclass(frozen=True)
class Cosine:
    """How alike two clips are: of the whole, value and raw as computed, and of each frame.

    value is None where a feature is not finite. It is 1 where raw is above by no more than ROUNDING;
    what lies further above is no cosine, stays as it is and fails the gate, which ends at 1.
    """

    raw: float
    frames: list[float]

    @property
    def value(self) -> float | None:
        """Return raw, or 1 where rounding alone has made more of it; the gate asks for this."""
        if not np.isfinite(self.raw):
            return None
        return 1.0 if 1 < self.raw <= 1 + ROUNDING else self.raw

    def to_json(self, gate: tuple[float, float]) -> dict[str, float | bool | None]:
        """Return the figures, and whether the clip's lies within the gate."""
        value, frames = self.value, np.array(self.frames)
        least = {"frame_min": 0, "frame_p1": 1, "frame_p5": 5}
        return {
            "value": value,
            "raw": self.raw,
            **{name: float(np.percentile(frames, p)) for name, p in least.items() if len(frames)},
            "passes": value is not None and gate[0] <= value <= gate[1],
        }


class Extractor:
    """A verified extractor, run by ONNX Runtime on the processor."""

    def __init__(self, spec: Spec, graph: Path) -> None:
        self.spec, self.name = spec, spec.name
        self._session = _session(graph)
        self._pool = _session(graph.with_name(spec.pool)) if spec.pool else None

    def cosine(self, reference: Iterable[np.ndarray], candidate: Iterable[np.ndarray]) -> Cosine:
        """Compare two clips of frames (H, W, 3) uint8, of equal length for figures by frame."""
        return self.between(self.features(reference), self.features(candidate))

    def features(self, frames: Iterable[np.ndarray]) -> Features:
        """Return the features of a clip of frames (H, W, 3) uint8."""
        watch = Watch(self)
        for frame in frames:
            watch.update(frame)
        return watch.summary()

    def pair(self) -> Pair:
        """Return an accumulator that takes two clips, a frame of each at a time, for their cosine."""
        return Pair(self)

    def between(self, wanted: Features, found: Features) -> Cosine:
        """Return the cosine of two clips with these features."""
        frames = [_cosine(a, b) for a, b in zip(wanted[1], found[1], strict=False)]
        if self.spec.kind == "clip":
            return Cosine(_cosine(wanted[0], found[0]), frames)
        return Cosine(float(np.mean(frames)), frames)

    def run(self, pictures: Sequence[np.ndarray], names: list[str] | None = None) -> list[np.ndarray]:
        """Return the graph's outputs of those names, or its first, for pictures of the extractor's size."""
        pixels = np.stack(pictures)
        if self.spec.dtype == "float32":
            pixels = (pixels.astype(np.float32) / 255 - self.spec.mean) / np.array(self.spec.std)
            pixels = pixels.astype(np.float32)
        if self.spec.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return self._session.run(names, {self.spec.input: pixels})

    def pool(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return a clip's outputs, from a row of numbers for each of its frames."""
        return self._pool.run(self.spec.outputs, {self._pool.get_inputs()[0].name: rows})


class Pair:
    """An accumulator of two clips, a frame of each at a time."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor, self._watches = extractor, (Watch(extractor), Watch(extractor))

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add the next frame of each, (H, W, 3) uint8."""
        for watch, frame in zip(self._watches, (reference, candidate), strict=True):
            watch.update(frame)

    def summary(self) -> Cosine:
        """Return the clips' cosine."""
        return self._extractor.between(*[watch.summary() for watch in self._watches])


def load_extractor(name: str) -> Extractor:
    """Load and verify the extractor of that name in bench/extractors, or of a path to a JSON file.

    ExtractorError: there is none, its file is not the one described, or it does not tell people apart.
    """
    path = Path(name) if name.endswith(".json") else EXTRACTORS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in EXTRACTORS.glob("*.json")))
        raise ExtractorError(f"no extractor {name!r}; there are {known}, or give the path of a JSON file")
    spec = _read_spec(path)
    graph = _described(path, spec.onnx, spec.sha256)
    if spec.pool:
        _described(path, spec.pool, spec.pool_sha256 or "none")
    extractor = _start(spec, graph)
    self_test(extractor)
    return extractor


def self_test(extractor: Extractor) -> None:
    """Check that a still picture of a person is alike itself only; ExtractorError."""
    from PIL import Image

    folder = EXTRACTORS / "self_test"
    a, b = (np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in "ab")
    noise = np.random.default_rng(0).integers(0, 256, a.shape, np.uint8)
    others = {"another person": b, "noise": noise, "a black picture": np.zeros_like(a)}
    clips = {name: np.repeat(picture[None], 8, 0) for name, picture in {"itself": a, **others}.items()}
    for name, clip in clips.items():
        raw = extractor.cosine(clips["itself"], clip).raw
        if not (raw >= SAME if name == "itself" else raw < OTHER):
            raise ExtractorError(
                f"{extractor.name} failed its self-test: a person and {name} have the cosine {raw:.4f}; "
                "are these trained weights, and is the preprocessing theirs?"
            )


def _read_spec(path: Path) -> Spec:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = [field.name for field in fields(Spec)]
        for key in found:
            if key not in known:
                raise ValueError(unknown("key", key, known))
        return Spec(**{key: tuple(v) if isinstance(v, list) else v for key, v in found.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise ExtractorError(f"{path} does not describe an extractor: {error}") from error


def _described(path: Path, name: str, sha256: str) -> Path:
    """Find the file of that name beside a description; ExtractorError unless it is the one described."""
    graph = path.parent / Path(name).name
    if not graph.is_file():
        raise ExtractorError(f"{path} describes {graph.name}, which is not beside it; export it again")
    found = file_sha256(graph)
    if found != sha256:
        differ = f"SHA-256 {found[:12]}.., expected {sha256[:12]}.."
        raise ExtractorError(f"{graph} is not the file that {path.name} describes: {differ}")
    return graph


def _session(graph: Path) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _start(spec: Spec, graph: Path) -> Extractor:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return Extractor(spec, graph)
    except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented) as error:
        raise ExtractorError(f"onnxruntime cannot load {graph}: {str(error).splitlines()[0]}") from error


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / lengths) if lengths else float("nan")
