"""Jumps over steps, fitted to runs of the base model: which sum of known tensors is nearest to later latents.

From an evaluated step i a plan jumps to the latents of step j by a weighted sum of the latents x_i, the
conditional prediction c_i, the guidance delta d_m of the last full step m <= i (conditional minus
unconditional) and the conditional prediction c_k of the step evaluated before i. Weights are single numbers,
fitted by least squares over videos. All of that, for every jump of every plan, follows from the inner
products of the tensors of a run, so the tensors themselves are kept only until their video's are taken.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Of a basis scaled to unit power. There to keep a basis solvable whose tensors repeat each other, no more:
# fitted on one, three or nine clips, the others' errors were never smaller with a ridge; 1e-4 made them up to
# 4 % larger, and 1e-6 left 1e-11 of exact jumps (Euler's own next step) where float32 leaves 1e-15. Relative
# to the mean power instead it would hang on units: latents of a thousand sigmas would drown the predictions.
RIDGE = 1e-10
CHUNK = 16384  # elements of each tensor that are in float64 at a time


def inner_products(tensors: Sequence[np.ndarray]) -> np.ndarray:
    """(n, n) float64: mean over elements of the product of each two of n tensors of one shape.

    Summed in float64: in float32 a real clip's are off by 2e-6, more than the error of a short jump.
    """
    shapes = {np.shape(tensor) for tensor in tensors}
    if len(shapes) != 1 or 0 in next(iter(shapes)):
        raise ValueError(f"inner products need tensors of one shape and not empty, got {sorted(shapes)}")
    flat = [np.asarray(tensor).reshape(-1) for tensor in tensors]
    products = np.zeros((len(flat), len(flat)))
    for start in range(0, flat[0].size, CHUNK):
        part = np.stack([tensor[start : start + CHUNK] for tensor in flat]).astype(np.float64)
        with np.errstate(invalid="ignore"):  # looked for below
            products += part @ part.T
    if not np.isfinite(products).all():
        raise ValueError("a tensor has numbers that are not finite, or too large; see what the run did wrong")
    return products / flat[0].size


def fit(products: np.ndarray, target: int, basis: Sequence[int]) -> tuple[np.ndarray, float]:
    """Weights of the basis tensors in the sum nearest to the target, and the mean square of what is missed.

    products: of inner_products; target and basis: rows of it.
    """
    weights, errors = _fits(products, np.array([basis]), np.array([target]))
    return weights[0, :, 0], float(errors[0, 0])


@dataclass(frozen=True, eq=False)
class Gram:
    """Inner products of all tensors of base runs over N steps, as means over elements, summed over videos.

    products: (R, R) float64, R = 3N + 1 + 2P; rows are x_0 ... x_N, c_0 ... c_(N-1), d_0 ... d_(N-1). Videos
    count alike, however long they are. shallow: P pairs (i, m), for each of which two rows follow: c and d of
    step i by a shallow engine with what the full step m kept.
    """

    products: np.ndarray
    videos: int = 1
    shallow: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        rows, shape = len(self.products) - 2 * len(self.shallow), self.products.shape
        if rows < 4 or rows % 3 != 1 or shape[1:] != shape[:1] or self.videos < 1:
            raise ValueError(
                f"a Gram needs 3N + 1 rows and columns and videos >= 1, got {shape} and {self.videos}"
            )
        if not np.isfinite(self.products).all():
            raise ValueError("a Gram has products that are not finite; capture its videos again")

    @classmethod
    def of(
        cls,
        latents: Sequence[np.ndarray],
        conditional: Sequence[np.ndarray],
        delta: Sequence[np.ndarray],
        shallow: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> Gram:
        """Of one video: N + 1 latents, N conditional predictions, N deltas, each list along the grid.

        shallow: by (i, m) the conditional prediction and the delta of step i from what step m kept.
        """
        counts = len(latents), len(conditional), len(delta)
        if counts[1] < 1 or counts != (counts[1] + 1, counts[1], counts[1]):
            raise ValueError(
                f"N steps have N + 1 latents, N conditional predictions and N deltas, got {counts}"
            )
        measured = shallow or {}
        both = [tensor for pair in measured.values() for tensor in pair]
        return cls(inner_products([*latents, *conditional, *delta, *both]), shallow=tuple(measured))

    def __add__(self, other: Gram) -> Gram:
        if self.steps != other.steps or self.shallow != other.shallow:
            raise ValueError(
                f"videos of {self.steps} and {other.steps} steps, with {len(self.shallow)} and "
                f"{len(other.shallow)} shallow ones; capture them alike"
            )
        return Gram(self.products + other.products, self.videos + other.videos, self.shallow)

    @property
    def steps(self) -> int:
        """N, the steps of the grid."""
        return (len(self.products) - 2 * len(self.shallow)) // 3

    def latents(self, step: int) -> int:
        """The row of the latents that step starts from; step N gives the result's."""
        return step

    def basis(self, step: int, before: int | None, full: int) -> tuple[int, ...]:
        """Rows of what a jump from step sums up: x, c, the delta of step full, and c of the one before.

        before: the step evaluated before this one; None for a run's first, which has no such term.
        """
        conditional, delta = self.steps + 1, 2 * self.steps + 1
        rows = (step, conditional + step, delta + full)
        return rows if before is None else (*rows, conditional + before)

    def shallow_basis(self, number: int, before: int) -> tuple[int, ...]:
        """Rows as basis() has them for the pair of that number: its own c and d instead of the step's."""
        first = 3 * self.steps + 1 + 2 * number
        return self.shallow[number][0], first, first + 1, self.steps + 1 + before

    def fit(self, target: int, basis: Sequence[int]) -> tuple[np.ndarray, float]:
        """Weights over all videos, and the mean square error of an element; target and basis are rows."""
        return fit(self.products / self.videos, target, basis)

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        with path.open("wb") as file:
            pairs = np.array(self.shallow, int).reshape(-1, 2)
            np.savez(file, products=self.products, videos=self.videos, shallow=pairs)

    @classmethod
    def load(cls, path: Path) -> Gram:
        """Of a file that save wrote; ValueError if it is another or damaged."""
        try:
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)
                pairs = found["shallow"].tolist() if "shallow" in found else []
                return cls(found["products"], int(found["videos"]), tuple(map(tuple, pairs)))
        except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: holds no inner products ({error}); capture them again") from error


def jump_errors(gram: Gram) -> tuple[np.ndarray, np.ndarray]:
    """Mean square error of an element for every jump: after a full step, and after a conditional one.

    full (N, N, N + 1): [i, k, j] from step i to the latents of step j, the step before i being k. The first
    step has none before it and stands at [0, 0, j]. conditional (N, N, N, N + 1): [i, k, m, j], m being the
    last full step. What cannot be (k >= i, m > k, j <= i) is inf.
    """
    steps, products = gram.steps, gram.products / gram.videos
    full = np.full((steps, steps, steps + 1), np.inf)
    conditional = np.full((steps, steps, steps, steps + 1), np.inf)
    for i in range(steps):
        later = np.arange(i + 1, steps + 1)
        if i == 0:
            full[0, 0, 1:] = _fits(products, np.array([gram.basis(0, None, 0)]), later)[1]
            continue
        rows = np.array([gram.basis(i, k, i) for k in range(i)])
        full[i, :i, i + 1 :] = _fits(products, rows, later)[1]
        k, m = np.tril_indices(i)
        rows = np.array([gram.basis(i, *pair) for pair in zip(k, m, strict=True)])
        conditional[i, k, m, i + 1 :] = _fits(products, rows, later)[1]
    return full, conditional


def shallow_errors(gram: Gram) -> np.ndarray:
    """As jump_errors' conditional, after a shallow step: (N, N, N, N + 1), [i, k, m, j]; inf if not measured.

    m is the full step whose features are taken, k >= m the one evaluated before, which counts as a full one.
    """
    steps, products = gram.steps, gram.products / gram.videos
    errors = np.full((steps, steps, steps, steps + 1), np.inf)
    for number, (i, m) in enumerate(gram.shallow):
        rows = np.array([gram.shallow_basis(number, k) for k in range(m, i)])
        errors[i, m:i, m, i + 1 :] = _fits(products, rows, np.arange(i + 1, steps + 1))[1]
    return errors


def weigh_kept(full: np.ndarray, conditional: np.ndarray, weight: float) -> np.ndarray:
    """The conditional table with what a kept delta adds to a full step's error counted 1 + weight times.

    So with a table of shallow steps, which have kept features. A kept delta errs in the same direction jump
    after jump, so its errors add up as a sum and not as squares.
    """
    added = np.zeros_like(conditional)
    np.subtract(conditional, full[:, :, None], out=added, where=np.isfinite(conditional))
    return conditional + weight * np.maximum(added, 0.0)


def _fits(products: np.ndarray, basis: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, b, t) and errors (n, t) of each of n bases (n, b) for each of t targets."""
    normal = products[basis[:, :, None], basis[:, None, :]]  # (n, b, b)
    right = products[basis[:, :, None], targets]  # (n, b, t)
    power = np.diagonal(normal, axis1=1, axis2=2)
    scale = np.sqrt(np.where(power > 0, power, 1.0))[:, :, None]  # a tensor of zeros keeps weight 0
    normal, right = normal / (scale * scale.transpose(0, 2, 1)), right / scale
    weights = np.linalg.solve(normal + RIDGE * np.eye(basis.shape[1]), right)
    # Written out, because the shorter form that holds at the minimum is not the error of these weights.
    errors = products[targets, targets] - np.sum(weights * (2 * right - normal @ weights), axis=1)
    return weights / scale, np.maximum(errors, 0.0)
