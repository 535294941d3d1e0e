"""Measure how far outputs are from their reference, and check it against the tolerance of a precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from engines.errors import EngineError
from engines.precision import PRECISIONS, Tolerance
from engines.spec import ComponentSpec, TensorSpec

Arrays = Mapping[str, np.ndarray]


class ParityError(EngineError):
    """An output that is not finite, or further from its reference than its precision explains."""


@dataclass(frozen=True)
class Difference:
    """The errors of one output over several calls: in its own units, 8-bit levels for pixels."""

    max_error: float
    mean_error: float
    cosine: float  # of the worst call
    unit: float  # what a tolerance's errors are parts of

    def __str__(self) -> str:
        return f"max {self.max_error:.3g}, mean {self.mean_error:.3g}, cosine {self.cosine:.7f}"

    def fits(self, tolerance: Tolerance) -> bool:
        """Tell whether the errors are within a tolerance."""
        mean_fits = self.mean_error <= tolerance.mean * self.unit
        most_fits = self.max_error <= tolerance.most * self.unit
        return mean_fits and most_fits and self.cosine >= tolerance.cosine


class NotFiniteError(ParityError):
    """Numbers of a graph that are not finite, where its reference has finite ones."""


class Parity:
    """The errors of a component over several calls, to compare with a precision's tolerance."""

    def __init__(self, spec: ComponentSpec) -> None:
        self._spec = spec
        self._found: dict[str, list[Difference]] = {tensor.name: [] for tensor in spec.outputs}

    def add(self, reference: Arrays, outputs: Arrays) -> None:
        """Add one call. ParityError: a number is not finite (NotFiniteError), or shapes or dtypes differ."""
        for tensor in self._spec.outputs:
            wanted, found = reference[tensor.name], outputs[tensor.name]
            require_finite(self._spec, tensor, wanted, "the reference", ParityError)
            require_finite(self._spec, tensor, found, "the graph", NotFiniteError)
            if wanted.shape != found.shape or found.dtype.name != tensor.dtype:
                raise ParityError(
                    f"{self._spec.name}: {tensor.name} is {found.shape} {found.dtype.name}, "
                    f"expected {wanted.shape} {tensor.dtype}"
                )
            self._found[tensor.name].append(_difference(wanted, found))

    def result(self) -> dict[str, Difference]:
        """Combine all calls by output: the largest error, the mean error and the lowest cosine."""
        return {
            name: Difference(
                max(each.max_error for each in calls),
                float(np.mean([each.mean_error for each in calls])),
                min(each.cosine for each in calls),
                float(np.mean([each.unit for each in calls])),
            )
            for name, calls in self._found.items()
        }

    def require(self, precision: str) -> dict[str, dict[str, float]]:
        """Give the result as plain data; ParityError names the first output out of tolerance."""
        tolerance = PRECISIONS[precision].tolerance
        for name, difference in self.result().items():
            if not difference.fits(tolerance):
                raise ParityError(
                    f"{self._spec.name}: {name} in {precision} is too far from its reference: {difference}; "
                    f"allowed: max {tolerance.most * difference.unit:.3g}, "
                    f"mean {tolerance.mean * difference.unit:.3g}, cosine {tolerance.cosine}"
                )
        return {name: asdict(difference) for name, difference in self.result().items()}

    def __str__(self) -> str:
        return "; ".join(f"{name}: {difference}" for name, difference in self.result().items())


def require_finite(
    spec: ComponentSpec, tensor: TensorSpec, array: np.ndarray, whose: str, error: type[ParityError]
) -> None:
    """Raise the error, which names component and output, if a number is NaN or infinite."""
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        where = f"{spec.name}: {tensor.name} of {whose}"
        raise error(f"{where}: {bad} of {array.size} numbers are not finite")


def draw(spec: ComponentSpec, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Draw random inputs: pixels over all levels, floats normal, other integers 0 or 1.

    Floats of one dim (times, flags: a number for each of the batch) are uniform in [0, 1) instead, where all
    that is known to go there lies.
    """
    random = np.random.default_rng(seed)
    return {tensor.name: _draw(tensor, sizes, random) for tensor in spec.inputs}


def extreme_sizes(spec: ComponentSpec) -> list[dict[str, int]]:
    """List the smallest and the largest size of every named dim; one entry if they are the same."""
    least = {name: limits.min for name, limits in spec.ranges.items()}
    most = {name: limits.max for name, limits in spec.ranges.items()}
    return [least, most] if least != most else [most]


def rms_error(reference: Iterable[np.ndarray], outputs: Iterable[np.ndarray]) -> float:
    """Compute the largest error of a call's outputs, as RMS in parts of the reference's RMS."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(reference, outputs, strict=True)]
    return max(float(_rms(a - b) / (_rms(a) or 1.0)) for a, b in pairs)


def _difference(reference: np.ndarray, found: np.ndarray) -> Difference:
    a, b = reference.astype(np.float64), found.astype(np.float64)
    error = np.abs(a - b)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(np.vdot(a, b) / lengths) if lengths else float(not error.any())
    unit = 255.0 if reference.dtype == np.uint8 else _rms(a)
    return Difference(float(error.max()), float(error.mean()), min(cosine, 1.0), unit)


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


def _draw(tensor: TensorSpec, sizes: Mapping[str, int], random: np.random.Generator) -> np.ndarray:
    shape = [dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims]
    if tensor.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    if not tensor.dtype.startswith("float"):
        return random.integers(0, 2, shape).astype(tensor.dtype)
    numbers = random.random(shape) if len(shape) == 1 else random.standard_normal(shape)
    return numbers.astype(tensor.dtype)
