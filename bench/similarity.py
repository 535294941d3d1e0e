"""The cosine similarity of two videos by a named feature extractor: an ONNX graph and how to feed it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from engines.artifact import file_sha256
from engines.unknown import unknown

EXTRACTORS = Path(__file__).parent / "extractors"
BATCH = 16  # frames that a graph of single frames takes at once
# The self-test: two people apart, a picture from itself, noise and black from a picture. It finds out a
# network or a preprocessing to which everything looks alike, as many with random weights; not all of these.
SAME, OTHER = 0.999, 0.97
RESIZE = ("box", "bilinear", "bicubic")


class ExtractorError(RuntimeError):
    """An extractor cannot be had or cannot be trusted; the text says why."""


@dataclass(frozen=True)
class Spec:
    """What an extractor's JSON file says.

    kind: "frames" for a graph that takes single frames and gives a feature each; "clip" for one that takes
    all frames of a clip, two at least, and gives one vector, and with frames_output one for each frame too.
    size: width and height of its input. mean, std: for float32 input, of pixels from 0 to 1.
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


@dataclass(frozen=True)
class Cosine:
    """How alike two clips are: of the whole, value clamped to 1 and raw as computed, and of each frame.

    value is None where a feature is not finite.
    """

    raw: float
    frames: list[float]

    @property
    def value(self) -> float | None:
        """Rounding gives 1.0000002, which would be outside of a gate that ends at 1."""
        return min(self.raw, 1.0) if np.isfinite(self.raw) else None

    def to_json(self, gate: tuple[float, float]) -> dict[str, float | bool | None]:
        """The figures, and whether the clip's lies within the gate."""
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
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.spec, self.name = spec, spec.name
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def cosine(self, reference: np.ndarray, candidate: np.ndarray) -> Cosine:
        """Between clips (F, H, W, 3) uint8, of equal length for figures by frame."""
        wanted, found = self.features(reference), self.features(candidate)
        frames = [_cosine(a, b) for a, b in zip(wanted[1], found[1], strict=False)]
        if self.spec.kind == "clip":
            return Cosine(_cosine(wanted[0], found[0]), frames)
        return Cosine(float(np.mean(frames)), frames)

    def features(self, frames: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """The feature of a clip (F, H, W, 3) uint8, if the extractor gives one, and those of frames."""
        if self.spec.kind == "frames":
            parts = [frames[i : i + BATCH] for i in range(0, len(frames), BATCH)]
            return None, np.concatenate([self._run(part, [self.spec.output])[0] for part in parts])
        frames = frames if len(frames) > 1 else frames.repeat(2, 0)
        names = [name for name in (self.spec.output, self.spec.frames_output) if name]
        clip, *each = self._run(frames, names)
        return clip[0], each[0] if each else np.zeros((0, 1))

    def _run(self, frames: np.ndarray, names: list[str]) -> list[np.ndarray]:
        pixels = np.stack([_fitted(frame, self.spec) for frame in frames])
        if self.spec.dtype == "float32":
            pixels = (pixels.astype(np.float32) / 255 - self.spec.mean) / np.array(self.spec.std)
            pixels = pixels.astype(np.float32)
        if self.spec.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return self._session.run(names, {self.spec.input: pixels})


def load_extractor(name: str) -> Extractor:
    """The extractor of that name in bench/extractors, or that a path to a JSON file describes, verified.

    ExtractorError: there is none, its file is not the one described, or it does not tell people apart.
    """
    path = Path(name) if name.endswith(".json") else EXTRACTORS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in EXTRACTORS.glob("*.json")))
        raise ExtractorError(f"no extractor {name!r}; there are {known}, or give the path of a JSON file")
    spec = _read_spec(path)
    graph = path.with_name(Path(spec.onnx).name)
    if not graph.is_file():
        raise ExtractorError(f"{path} describes {graph.name}, which is not beside it; export it again")
    found = file_sha256(graph)
    if found != spec.sha256:
        differ = f"SHA-256 {found[:12]}.., expected {spec.sha256[:12]}.."
        raise ExtractorError(f"{graph} is not the file that {path.name} describes: {differ}")
    extractor = _start(spec, graph)
    self_test(extractor)
    return extractor


def self_test(extractor: Extractor) -> None:
    """ExtractorError unless it finds a still picture of a person alike itself only."""
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


def _start(spec: Spec, graph: Path) -> Extractor:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return Extractor(spec, graph)
    except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented) as error:
        raise ExtractorError(f"onnxruntime cannot load {graph}: {str(error).splitlines()[0]}") from error


def _fitted(frame: np.ndarray, spec: Spec) -> np.ndarray:
    """The frame (H, W, 3) at the extractor's size: stretched, or whole with black around it."""
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


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / lengths) if lengths else float("nan")
