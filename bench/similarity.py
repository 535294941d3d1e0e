"""Compute the cosine similarity of two videos by a named feature extractor: an ONNX graph, described."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.described import (
    KNOWN,
    Described,
    ExtractorError,
    check_known,
    described_file,
    find_description,
    fitted,
    read_description,
    run_graph,
    start_session,
    to_pixels,
)

EXTRACTORS = Path(__file__).parent / "extractors"
# The self-test: two people apart, a picture from itself, noise and black from a picture. It finds out a
# network or a preprocessing to which everything looks alike, as many with random weights; not all of these.
SAME, OTHER = 0.999, 0.97
# Above 1: sums of 2048 products in float32 are wrong by up to some 1e-6, and ten times that is still noise.
ROUNDING = 1e-5
BATCH = 16  # frames that a graph takes at once
Features = tuple[np.ndarray | None, np.ndarray]  # of a clip, if there is one; of its frames


@dataclass(frozen=True, kw_only=True)
class Spec(Described):
    """The content of an extractor's JSON file.

    kind: "frames" for a graph that takes single frames and gives a feature each; "clip" for one that takes
    all frames of a clip, two at least, and gives one vector, and with frames_output one for each frame too.
    pool: a second file, so that a clip can be of any length: the first graph then gives a row of numbers for
    each frame, from it and the one before it (itself for the first), and this one takes all rows.
    """

    output: str
    frames_output: str | None = None
    pool: str | None = None
    pool_sha256: str | None = None

    @property
    def outputs(self) -> list[str]:
        """Names of the features: of a clip and of its frames, or of frames."""
        return [name for name in (self.output, self.frames_output) if name]

    def __post_init__(self) -> None:
        check_known(self, {"kind": ("frames", "clip"), **KNOWN})
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
        self._session = start_session(graph)
        self._pool = start_session(graph.with_name(Path(spec.pool).name)) if spec.pool else None

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
        pixels = to_pixels(pictures, self.spec)
        found = run_graph(self._session, names, {self.spec.input: pixels}, self.name)
        if self.spec.kind == "frames" and len(found[0]) != len(pictures):
            told = f"{len(found[0])} rows for {len(pictures)} frames"
            raise ExtractorError(f"{self.name}: its graph gives {told}")
        return found

    def pool(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return a clip's outputs, from a row of numbers for each of its frames."""
        return run_graph(self._pool, self.spec.outputs, {self._pool.get_inputs()[0].name: rows}, self.name)


class Watch:
    """An accumulator that takes a clip frame by frame for its features, and holds no more than BATCH frames.

    A graph for clips without a second one to pool needs all frames at once; they are held until then.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor, self._spec = extractor, extractor.spec
        self._in_parts = self._spec.kind == "frames" or self._spec.pool
        self._before: list[np.ndarray] = []  # the last one of those that were taken, where the next needs it
        self._waiting: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def update(self, frame: np.ndarray) -> None:
        """Add the next frame (H, W, 3) uint8."""
        self._waiting.append(fitted(frame, self._spec))
        if self._in_parts and len(self._waiting) == BATCH:
            self._take()

    def summary(self) -> Features:
        """Return the features of all frames, one at least."""
        if self._in_parts:
            if self._waiting:
                self._take()
            rows = np.concatenate(self._rows)
            if self._spec.kind == "frames":
                return None, rows
            clip, *each = self._extractor.pool(rows)
        else:
            clip, *each = self._extractor.run(_two(self._waiting), self._spec.outputs)
        return clip[0], each[0] if each else np.zeros((0, 1))

    def _take(self) -> None:
        if self._spec.kind == "frames":
            self._rows += self._extractor.run(self._waiting, self._spec.outputs)
        else:
            rows = self._extractor.run(_two([*self._before, *self._waiting]))[0]
            self._rows.append(rows[len(self._before) :])
            self._before = self._waiting[-1:]
        self._waiting = []


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
    path = find_description(name, EXTRACTORS, "extractor")
    spec = read_description(path, Spec, "an extractor")
    graph = described_file(path, spec.onnx, spec.sha256)
    if spec.pool:
        described_file(path, spec.pool, spec.pool_sha256 or "none")
    extractor = Extractor(spec, graph)
    self_test(extractor)
    return extractor


def load_extractors(names: Iterable[str]) -> list[Extractor]:
    """Load several extractors, each once; those of one name are told apart by their paths. ExtractorError."""
    paths = {}
    for name in names:
        path = find_description(name, EXTRACTORS, "extractor")
        paths.setdefault(path.resolve(), (name, path))
    found = {path: load_extractor(name) for name, path in paths.values()}
    own = [each.name for each in found.values()]
    for path, extractor in found.items():
        if own.count(extractor.name) > 1:
            extractor.name = f"{extractor.name} of {path}"
    return list(found.values())


def self_test(extractor: Extractor) -> None:
    """Check that a still picture of a person is alike itself only; ExtractorError."""
    from PIL import Image

    folder = EXTRACTORS / "self_test"
    a, b = (np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in "ab")
    noise = np.random.default_rng(0).integers(0, 256, a.shape, np.uint8)
    others = {"another person": b, "noise": noise, "a black picture": np.zeros_like(a)}
    clips = {name: np.repeat(picture[None], 8, 0) for name, picture in {"itself": a, **others}.items()}
    wanted = extractor.features(clips["itself"])
    for name, clip in clips.items():
        raw = extractor.between(wanted, extractor.features(clip)).raw
        if not (raw >= SAME if name == "itself" else raw < OTHER):
            raise ExtractorError(
                f"{extractor.name} failed its self-test: a person and {name} have the cosine {raw:.4f}; "
                "are these trained weights, and is the preprocessing theirs?"
            )


def _two(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Return at least two frames, as graphs of clips need: a single one twice."""
    return pictures if len(pictures) > 1 else pictures * 2


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / lengths) if lengths else float("nan")
