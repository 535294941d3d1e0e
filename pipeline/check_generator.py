"""Check on one window whether a generator keeps the contract, and say what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from engines.backends.torch_backend import TorchEngine
from engines.errors import BROKEN, InputError, describe_error
from engines.spec import ComponentSpec, Engine
from generators.contract import Generator
from generators.windows import ContinuationWindows
from pipeline.batch.dataset import Request
from pipeline.columns import FORM, example_columns
from pipeline.component_check import STATELESS, Finding, check_export, check_graph_of, check_module, same
from pipeline.length_check import check_lengths
from pipeline.members_check import check_components, check_settings
from pipeline.output_form import at_size, output_form
from pipeline.sampler import Sampler
from pipeline.steps_check import check_steps, kind_of

Findings = dict[str, list[Finding]]
SEED = 1
MEMBERS = "correct what this is about; docs/wrapping.md says what each member is"
SHAPES = ((540, 960), (960, 540), (720, 720))  # of inputs that a generator may choose its size by


def check_generator(generator: Generator, export: Path | None = None, trace: bool = False) -> Findings:
    """Return the findings by the name of each check, in order; an empty list where a check passes.

    Checks that depend on a failed one are left out. Components run as torch modules on the CPU. trace: they
    are traced too, as for an export. export: a folder; each component is also exported to it, and compared.
    """
    found: Findings = {
        name: _tried(name, partial(check, generator), MEMBERS)
        for name, check in (("settings", check_settings), ("components", check_components))
    }
    if found["components"]:
        return found
    modules = {}
    for name, spec in generator.components.items():
        found[f"component {name}"] = _build(generator, spec, modules)
    if any(found.values()):
        return found
    engines = _Engines({n: TorchEngine(generator.components[n], module) for n, module in modules.items()})
    wrong, sizes = _forms(generator)
    found |= {"output": wrong} if any(hasattr(generator, member) for member in FORM) else {}
    for size in (generator.size, *sizes):
        trial = Trial(at_size(generator, size), engines)
        at = "" if size == generator.size else " at {} x {}".format(*size)
        for what in ("fit", "noise", "steps", "condition", "denoise", "decode", *(() if at else ("state",))):
            found[what + at] = _tried(what + at, getattr(trial, what))
            if found[what + at] and what != "state":
                return found
    found["longer clip"] = _tried("longer clip", lambda: check_lengths(generator, engines))
    for name, spec in generator.components.items() if trace else ():
        found[f"graph {name}"] = check_export(spec, modules[name])
    for name in generator.components if export else ():
        found[f"export {name}"] = check_graph_of(generator, name, export)
    return found


class Trial:
    """A trial run of a generator: its methods in a request's order, on two random clips of one window."""

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
        """Check that fit() brings pictures of any size to the generator's own, as uint8."""
        width, height = self._generator.size
        fitted = self._generator.fit(np.zeros((2, 75, 131, 3), np.uint8))
        wanted = (2, height, width, 3)
        if getattr(fitted, "shape", None) != wanted or fitted.dtype != np.uint8:
            wrong = f"it gives {kind_of(fitted)}, expected {wanted} uint8"
            yield Finding("fit", wrong, "scale and cut to size, (width, height); see generators/resize.py")

    def noise(self) -> Iterator[Finding]:
        """Check that noise() is float32 of the asked length, repeatable, and different for another seed."""
        generator = self._generator
        count, axis = len(generator.windows.condition_indices(self._frames)), generator.frame_axis
        first, again, other = (generator.noise(count, seed) for seed in (SEED, SEED, SEED + 1))
        if not isinstance(first, np.ndarray) or first.dtype != np.float32:
            wrong = f"it gives {kind_of(first)}, expected float32"
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

    def steps(self) -> Iterator[Finding]:
        """Check the noise of longer clips and of steps, and the scheduler over all steps."""
        return check_steps(self._generator)

    def condition(self) -> Iterator[Finding]:
        """Check that condition() gives NumPy arrays by name, among them all that per_frame names."""
        generator = self._generator
        for number in (0, 1):
            constants = self._condition(number)
            self._seen.append(constants)
            lost = sorted(generator.per_frame - set(constants)) if isinstance(constants, Mapping) else []
            if not isinstance(constants, Mapping) or not all(
                isinstance(each, np.ndarray) for each in constants.values()
            ):
                yield Finding("condition", f"it gives {kind_of(constants)}", "give NumPy arrays by name")
            elif lost:
                mend = "name there exactly the entries of condition() that have a value a frame"
                yield Finding("per_frame", f"condition() gives no {', '.join(lost)}", mend)
            else:
                continue
            return

    def denoise(self) -> Iterator[Finding]:
        """Check that predictions at the first and last step are like the latents, which stay unchanged."""
        generator, noise = self._generator, self._noise[0]
        before = noise.copy()
        for step in (0, generator.scheduler.steps - 1):
            for prediction in self._predict(0, step):
                if prediction.shape != noise.shape or prediction.dtype != np.float32:
                    wrong = f"it gives {kind_of(prediction)} for latents {noise.shape} float32"
                    yield Finding("denoise", wrong, "give a prediction for each number of the latents")
                    return
        if not np.array_equal(before, noise):
            mend = "copy the latents before you change them"
            yield Finding("denoise", "it writes into the latents it is given", mend)
        self._predicted = [self._predict(number, 0) for number in (0, 1)]
        (together, *_), (alone, *_) = self._predicted[0], self._predict(0, 0, "C")
        if not np.allclose(together, alone, rtol=0, atol=1e-2 * float(np.abs(alone).max())):
            wrong = "the conditional branch is predicted otherwise alone than with the others"
            mend = "let denoise_branches give predictions in the order of branches, along axis 0"
            yield Finding("denoise", wrong, mend)

    def decode(self) -> Iterator[Finding]:
        """Check that decode() gives uint8 pixels at the generator's size, for at least the clip's frames."""
        width, height = self._generator.size
        self._pixels = [self._decode(0), self._decode(1)]
        pixels = self._pixels[0]
        if pixels.shape[1:] != (height, width, 3) or pixels.dtype != np.uint8:
            wrong = f"it gives {kind_of(pixels)}, expected (frames, {height}, {width}, 3) uint8"
            yield Finding("decode", wrong, "correct size, or what the decoder gives; colours come last")
        elif len(pixels) < self._frames:
            wrong = f"it gives {len(pixels)} frames of a clip of {self._frames}"
            yield Finding("decode", wrong, "yield all chunks; windows.latent_frames says what is decoded")

    def state(self) -> Iterator[Finding]:
        """Run the first clip again after the second, and check that nothing was kept: equal results."""
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
        image = self._images[number]
        columns = example_columns(self._generator, image)
        return self._generator.condition(self._engines, iter(chunks), image, **columns)

    def _predict(self, number: int, step: int, action: str = "F") -> tuple[np.ndarray, ...]:
        generator, windows, constants = self._generator, self._generator.windows, self._seen[number]
        if isinstance(windows, ContinuationWindows):
            constants = generator.carry(self._engines, constants, 0, None)
        denoise = Sampler(generator, self._engines).blended(constants, self._frames)
        return denoise(self._noise[number], step, action)

    def _decode(self, number: int) -> np.ndarray:
        generator, latents = self._generator, self._noise[number]
        own = generator.windows.latent_frames(self._frames)
        decoded = latents.take(np.arange(own), generator.frame_axis)
        return np.concatenate(list(generator.decode(self._engines, decoded)))


class _Engines(dict):
    """Engines by name; asking for one that is missing raises LookupError with the known names."""

    def __missing__(self, name: str) -> Engine:
        raise LookupError(f"engines[{name!r}] is asked for, but components has only {sorted(self)}")


def _forms(generator: Generator) -> tuple[list[Finding], list[tuple[int, int]]]:
    """Ask output_size and output_fps about some videos; return what is wrong, and further sizes they gave."""
    video, fps, sizes = Path("a.mp4"), Fraction(24), []
    request = Request("a trial", video, video, SEED)
    for shape in SHAPES:
        try:
            sized, _ = output_form(request, generator, shape, shape, fps)
        except (*BROKEN, InputError) as error:
            mend = "give (width, height), both even, and frames a second; a column needs a default"
            return [Finding("output_size, output_fps", describe_error(error), mend)], []
        if sized.size not in (generator.size, *sizes):
            sizes.append(sized.size)
    return [], sizes


def _build(generator: Generator, spec: ComponentSpec, modules: dict) -> list[Finding]:
    """Build a component's torch module, add it to modules, and check it against its spec."""
    try:
        modules[spec.name] = generator.build(spec.name)
    except BROKEN as error:
        mend = "return a torch module with loaded weights for every name in components"
        return [Finding(f"build({spec.name!r})", describe_error(error), mend)]
    return check_module(spec, modules[spec.name])


def _tried(what: str, check: Callable[[], Iterator[Finding]], mend: str = "") -> list[Finding]:
    """Return a check's findings; an exception of the generator's code becomes a finding, with that mend."""
    try:
        return list(check())
    except BROKEN as error:
        return [Finding(what, describe_error(error), mend or _mend(error))]


def _mend(error: BaseException) -> str:
    if isinstance(error, LookupError) and str(error).startswith("engines["):
        return "add a ComponentSpec of that name to components, and let build() make it"
    return "give the engines what components says, or say in components what the networks take"


def _equal(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and same(list(first.values()), [second[name] for name in first])
