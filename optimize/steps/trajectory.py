"""Reduce a run of the base model to inner products of its tensors, from which plans are predicted.

From an evaluated step i a plan jumps to the latents of step j by the latents x_i, the conditional prediction
c_i, the guided difference d_m of the last full step m <= i (guidance minus one times conditional minus
unconditional), and the conditional prediction c_k of the step evaluated before i. Solvers and corrections
are sums of these with factors, so the error of every jump of every plan follows from the inner products of a
run's tensors; the tensors themselves are kept only until the products of their video are computed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.files import atomic_write

# Added to the normal matrix of a basis scaled to unit power, only to keep it solvable when tensors are
# linearly dependent: fitted on one, three or nine clips, the others' errors were never smaller with a ridge;
# 1e-4 made them up to 4 % larger, and 1e-6 left an error of 1e-11 in exact jumps (Euler's own next step)
# where float32 leaves 1e-15. A ridge relative to the mean power would depend on units: latents of a thousand
# sigmas would outweigh the predictions.
RIDGE = 1e-10
CHUNK = 16384  # elements of each tensor that are converted to float64 at a time


def inner_products(tensors: Sequence[np.ndarray]) -> np.ndarray:
    """Return (n, n) float64: the mean over elements of the product of each two of n tensors of one shape.

    They are summed in float64: in float32 those of a real clip are off by 2e-6, more than the error of a
    short jump. ValueError: shapes differ, tensors are empty, or numbers are not finite.
    """
    shapes = {np.shape(tensor) for tensor in tensors}
    if len(shapes) != 1 or 0 in next(iter(shapes)):
        raise ValueError(f"inner products need tensors of one shape and not empty, got {sorted(shapes)}")
    flat = [np.asarray(tensor).reshape(-1) for tensor in tensors]
    products = np.zeros((len(flat), len(flat)))
    for start in range(0, flat[0].size, CHUNK):
        part = np.stack([tensor[start : start + CHUNK] for tensor in flat]).astype(np.float64)
        with np.errstate(invalid="ignore"):  # checked below
            products += part @ part.T
    if not np.isfinite(products).all():
        raise ValueError("a tensor has numbers that are not finite, or too large; see what the run did wrong")
    return products / flat[0].size


def least_squares(normal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return weights (..., b) from the products of a basis (..., b, b) and those with the target (..., b)."""
    power = np.diagonal(normal, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(power > 0, power, 1.0))  # a tensor of zeros keeps weight 0
    normal = normal / (scale[..., None] * scale[..., None, :]) + RIDGE * np.eye(scale.shape[-1])
    return np.linalg.solve(normal, (right / scale)[..., None])[..., 0] / scale


@dataclass(frozen=True, eq=False)
class Gram:
    """The inner products of all tensors of one video's base run over N steps, as means over elements.

    products: (R, R) float64, R = 3N + 1 + 2P; rows are x_0 ... x_N, c_0 ... c_(N-1), d_0 ... d_(N-1), where d
    are guided differences. shallow: P pairs (i, m), for each of which two rows follow: c and d of step i by a
    shallow engine with the features of the full step m. ValueError: a shape or a number is wrong.
    """

    products: np.ndarray
    shallow: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        rows, shape = len(self.products) - 2 * len(self.shallow), self.products.shape
        if rows < 4 or rows % 3 != 1 or shape[1:] != shape[:1]:
            raise ValueError(f"a Gram needs 3N + 1 rows and columns, got {shape}")
        if not np.isfinite(self.products).all():
            raise ValueError("a Gram has products that are not finite; capture its video again")

    @classmethod
    def of(
        cls,
        latents: Sequence[np.ndarray],
        conditional: Sequence[np.ndarray],
        delta: Sequence[np.ndarray],
        shallow: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> Gram:
        """Compute the products of N + 1 latents, N conditional predictions and N guided differences, by step.

        shallow: by (i, m), the conditional prediction and the guided difference of step i with the features
        of step m. ValueError: the counts do not fit.
        """
        counts = len(latents), len(conditional), len(delta)
        if counts[1] < 1 or counts != (counts[1] + 1, counts[1], counts[1]):
            raise ValueError(
                f"N steps have N + 1 latents, N conditional predictions and N differences, got {counts}"
            )
        measured = shallow or {}
        both = [tensor for pair in measured.values() for tensor in pair]
        return cls(inner_products([*latents, *conditional, *delta, *both]), shallow=tuple(measured))

    @property
    def steps(self) -> int:
        """N, the steps of the schedule."""
        return (len(self.products) - 2 * len(self.shallow)) // 3

    def rows(self, step: int, full: int, before: int) -> tuple[int, ...]:
        """Return the rows of x and c of the step, d of the full one, and x, c and d of the step before."""
        x, c, d = 0, self.steps + 1, 2 * self.steps + 1
        return x + step, c + step, d + full, x + before, c + before, d + min(full, before)

    def shallow_rows(self, number: int, before: int) -> tuple[int, ...]:
        """Return the rows of a shallow pair by its number: like rows(), but with the pair's own c and d."""
        step, full = self.shallow[number]
        first = 3 * self.steps + 1 + 2 * number
        return (step, first, first + 1, *self.rows(step, full, before)[3:])

    def save(self, path: Path) -> None:
        """Write the products to an .npz file, which is whole or not there."""
        pairs = np.array(self.shallow, int).reshape(-1, 2)
        with atomic_write(path) as draft, draft.open("wb") as file:
            np.savez(file, products=self.products, shallow=pairs)

    @classmethod
    def load(cls, path: Path) -> Gram:
        """Read a file that save() wrote. ValueError: it is another file, or damaged."""
        try:
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)
                pairs = found["shallow"].tolist() if "shallow" in found else []
                return cls(found["products"], tuple(map(tuple, pairs)))
        except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: holds no inner products ({error}); capture them again") from error


def kept_gram(path: Path) -> Gram | None:
    """Read the products of an earlier run; None: there are none, or the file was cut off."""
    try:
        return Gram.load(path)
    except (FileNotFoundError, ValueError):
        return None
