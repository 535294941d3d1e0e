"""Whether a generator keeps the contract, tried on one window: what is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from engines.backends.torch_backend import TorchEngine
from engines.errors import EngineError
from engines.onnx.export import Target, export_onnx
from engines.spec import ComponentSpec, Engine
from generators.contract import Generator
from generators.windows import ContinuationWindows
from pipeline.component_check import BROKEN, STATELESS, Finding, check_module, raised, same
from pipeline.sampler import Sampler

Findings = dict[str, list[Finding]]
SEED = 1


def check_generator(generator: Generator, export: Path | None = None) -> Findings:
    """Findings by what was checked, in order; none where it holds. What needs a failed check is left out.

    Components run as torch modules on the processor. export: a folder to which each is exported, too.
    """
    found: Findings = {"settings": list(_settings(generator)), "components": list(_components(generator))}
    if found["components"]:
        return found
    modules = {}
    for name, spec in generator.components.items():
        found[f"component {name}"] = _build(generator, spec, modules)
    if any(found.values()):
        return found
    engines = _Engines({n: TorchEngine(generator.components[n], module) for n, module in modules.items()})
    trial = Trial(generator, engines)
    for what in ("fit", "noise", "condition", "denoise", "decode"):
        found[what] = _tried(what, getattr(trial, what))
        if found[what]:
            return found
    found["state"] = _tried("state", trial.state)
    for name in generator.components if export else ():
        found[f"export {name}"] = _export(generator, name, export)
    return found


class Trial:
    """Runs a generator's members in the order of a request, on two made-up clips of one window each."""

    def __init__(self, generator: Generator, engines: Mapping[str, Engine]) -> None:
        self._generator, self._engines = generator, engines
        self._frames = generator.windows.frames
        draws = np.random.default_rng(SEED)
        width, height = generator.size
        self._clips = draws.integers(0, 256, (2, self._frames, height, width, 3), np.uint8)
        self._images = draws.integers(0, 256, (2, 1, height, width, 3), np.uint8)
        self._noise: list[np.ndarray] = []
        self._seen: list[Mapping[str, np.ndarray]] = []
        self._predicted: list[tuple[np.ndarray, ...]] = []
        self._pixels: list[np.ndarray] = []

    def fit(self) -> Iterator[Finding]:
        """Pictures of an odd size come to the generator's own."""
        width, height = self._generator.size
        fitted = self._generator.fit(np.zeros((2, 75, 131, 3), np.uint8))
        wanted = (2, height, width, 3)
        if getattr(fitted, "shape", None) != wanted or fitted.dtype != np.uint8:
            wrong = f"it gives {_what(fitted)}, expected {wanted} uint8"
            yield Finding("fit", wrong, "scale and cut to size, (width, height); see generators/resize.py")

    def noise(self) -> Iterator[Finding]:
        """Float32 of the asked length, the same for a seed, another for another."""
        generator = self._generator
        count, axis = len(generator.windows.condition_indices(self._frames)), generator.frame_axis
        first, again, other = (generator.noise(count, seed) for seed in (SEED, SEED, SEED + 1))
        if not isinstance(first, np.ndarray) or first.dtype != np.float32:
            wrong = f"it gives {_what(first)}, expected float32"
            yield Finding("noise", wrong, "end it with .astype(np.float32)")
        elif first.ndim <= axis or first.shape[axis] != count:
            wrong = f"asked for {count} latent frames, it gives {first.shape}: frame_axis is {axis}"
            yield Finding("noise", wrong, "give that many along frame_axis, or correct frame_axis")
        elif not np.array_equal(first, again):
            mend = "draw from np.random.Generator(np.random.Philox(seed)) made inside, or generators/noise.py"
            yield Finding("noise", "the same seed gives other numbers the second time", mend)
        elif np.array_equal(first, other):
            yield Finding("noise", "another seed gives the same numbers", "use the seed that is given")
        self._noise = [first, other]

    def condition(self) -> Iterator[Finding]:
        """Named arrays, with frames where per_frame says."""
        generator = self._generator
        for number in (0, 1):
            constants = self._condition(number)
            self._seen.append(constants)
            lost = sorted(generator.per_frame - set(constants)) if isinstance(constants, Mapping) else []
            if not isinstance(constants, Mapping) or not all(
                isinstance(each, np.ndarray) for each in constants.values()
            ):
                yield Finding("condition", f"it gives {_what(constants)}", "give NumPy arrays by name")
            elif lost:
                mend = "name there exactly the entries of condition() that have a value a frame"
                yield Finding("per_frame", f"condition() gives no {', '.join(lost)}", mend)
            else:
                continue
            return

    def denoise(self) -> Iterator[Finding]:
        """Both branches at the first and the last step: predictions like the latents."""
        generator, noise = self._generator, self._noise[0]
        before = noise.copy()
        for step in (0, generator.scheduler.steps - 1):
            for prediction in self._predict(0, step):
                if prediction.shape != noise.shape or prediction.dtype != np.float32:
                    wrong = f"it gives {_what(prediction)} for latents {noise.shape} float32"
                    yield Finding("denoise", wrong, "give a prediction for each number of the latents")
                    return
        if not np.array_equal(before, noise):
            mend = "copy the latents before you change them"
            yield Finding("denoise", "it writes into the latents it is given", mend)
        self._predicted = [self._predict(number, 0) for number in (0, 1)]

    def decode(self) -> Iterator[Finding]:
        """Chunks of pixels at the generator's size, at least as many as the clip has frames."""
        width, height = self._generator.size
        self._pixels = [self._decode(0), self._decode(1)]
        pixels = self._pixels[0]
        if pixels.shape[1:] != (height, width, 3) or pixels.dtype != np.uint8:
            wrong = f"it gives {_what(pixels)}, expected (frames, {height}, {width}, 3) uint8"
            yield Finding("decode", wrong, "correct size, or what the decoder gives; colours come last")
        elif len(pixels) < self._frames:
            wrong = f"it gives {len(pixels)} frames of a clip of {self._frames}"
            yield Finding("decode", wrong, "yield all chunks; windows.latent_frames says what is decoded")

    def state(self) -> Iterator[Finding]:
        """All again, for the first clip after the second: nothing may have been kept of what ran between."""
        constants = self._condition(0)
        if not _equal(self._seen[0], constants):
            yield Finding("condition", "its answer depends on the clip before", STATELESS)
        if not same(self._predicted[0], self._predict(0, 0)):
            wrong = "a window's prediction depends on what ran before it: the generator keeps a hidden state"
            mend = "keep nothing on self; what a request needs belongs in what condition() gives"
            yield Finding("denoise", wrong, mend)
        if not np.array_equal(self._pixels[0], self._decode(0)):
            yield Finding("decode", "its pixels depend on what was decoded before", STATELESS)

    def _condition(self, number: int) -> Mapping[str, np.ndarray]:
        chunk = self._generator.chunk
        chunks = np.split(self._clips[number], range(chunk, self._frames, chunk))
        return self._generator.condition(self._engines, iter(chunks), self._images[number])

    def _predict(self, number: int, step: int) -> tuple[np.ndarray, ...]:
        generator, windows, constants = self._generator, self._generator.windows, self._seen[number]
        if isinstance(windows, ContinuationWindows):
            constants = generator.carry(self._engines, constants, 0, None)
        denoise = Sampler(generator, self._engines).blended(constants, self._frames)
        return denoise(self._noise[number], step, "F")

    def _decode(self, number: int) -> np.ndarray:
        generator, latents = self._generator, self._noise[number]
        own = generator.windows.latent_frames(self._frames)
        cut = latents.take(np.arange(own), generator.frame_axis)
        return np.concatenate(list(generator.decode(self._engines, cut)))


class _Engines(dict):
    """Engines by name; one that is not there is explained."""

    def __missing__(self, name: str) -> Engine:
        raise LookupError(f"engines[{name!r}] is asked for, but components has only {sorted(self)}")


def _settings(generator: Generator) -> Iterator[Finding]:
    lost = [str(path) for path in generator.fingerprint_files if not Path(path).is_file()]
    if lost or not generator.fingerprint_files:
        wrong = f"{', '.join(lost)} cannot be read" if lost else "there are none"
        mend = "name the weights and the code of the networks, so that stale engines are noticed"
        yield Finding("fingerprint_files", wrong, mend)
    times, steps = np.asarray(generator.scheduler.times), generator.scheduler.steps
    if times.shape != (steps + 1,) or times.dtype != np.float32:
        yield Finding(
            "scheduler", f"times are {_what(times)}", f"give {steps + 1} float32: steps and the end"
        )
    for frames in (1, generator.windows.frames, 2 * generator.windows.frames + 1):
        yield from _covered(generator, frames)


def _covered(generator: Generator, frames: int) -> Iterator[Finding]:
    windows = generator.windows
    sampled, places = len(windows.condition_indices(frames)), windows.window_indices(frames)
    lost = set(range(sampled)) - {int(each) for place in places for each in place}
    if lost or max(map(len, places)) > windows.length:
        wrong = f"of a clip of {frames} frames, {len(lost)} of {sampled} latent frames are in no window"
        yield Finding(
            "windows", wrong, "let window_indices() cover all latent frames, at most length at a time"
        )


def _components(generator: Generator) -> Iterator[Finding]:
    for name, spec in generator.components.items():
        if not isinstance(spec, ComponentSpec) or spec.name != name:
            wrong = f"components[{name!r}] is {getattr(spec, 'name', type(spec).__name__)!r}"
            yield Finding("components", wrong, "let each ComponentSpec have the name it is found by")
    if "denoise" not in generator.components:
        wrong = f"there is no 'denoise' among {sorted(generator.components)}"
        yield Finding("components", wrong, "call the network that is run at every step denoise")


def _build(generator: Generator, spec: ComponentSpec, modules: dict) -> list[Finding]:
    try:
        modules[spec.name] = generator.build(spec.name)
    except BROKEN as error:
        mend = "return a torch module with loaded weights for every name in components"
        return [Finding(f"build({spec.name!r})", raised(error), mend)]
    return check_module(spec, modules[spec.name])


def _tried(what: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except BROKEN as error:
        return [Finding(what, raised(error), _mend(error))]


def _mend(error: BaseException) -> str:
    if isinstance(error, LookupError) and str(error).startswith("engines["):
        return "add a ComponentSpec of that name to components, and let build() make it"
    return "give the engines what components says, or say in components what the networks take"


def _export(generator: Generator, component: str, folder: Path) -> list[Finding]:
    try:
        export_onnx(generator, component, Target(folder, lambda text: None))
    except EngineError as error:
        mend = "shapes and constants only: no .item(), no branch on a tensor's values, no in-place tricks"
        return [Finding(component, str(error), mend)]
    return []


def _equal(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and same(list(first.values()), [second[name] for name in first])


def _what(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype.name}"
    return type(value).__name__
