"""Evaluate the branches of a window as one batch, for generators that predict one branch a call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.errors import UsageError
from engines.spec import ComponentSpec
from generators.contract import Branch, Constants, Engines, Generator, branches_of
from pipeline.window_denoiser import SerialDenoiser

Arrays = dict[str, np.ndarray]


class _Asked(Exception):
    """Raised instead of an evaluation; carries what was asked."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.arrays = arrays


def asked(
    generator: Generator, window: np.ndarray, step: int, constants: Constants, branch: Branch
) -> Arrays:
    """Return what the generator asks its engine for a branch. UsageError: it asks nothing."""

    def note(**arrays: np.ndarray) -> Arrays:
        raise _Asked(arrays)

    try:
        generator.denoise(note, window, step, constants, branch)
    except _Asked as found:
        return found.arrays
    raise UsageError(f"the branches of {generator.name} are not one call of the engine each")


def why_not_together(generator: Generator) -> str | None:
    """Return None if the generator's branches can be one batch, else what is in the way."""
    if hasattr(generator, "denoise_branches"):
        return None
    spec, count = generator.components["denoise"], len(branches_of(generator.guidance))
    batch = _batch(spec)
    if batch not in spec.ranges or not spec.ranges[batch].min <= 1 < count <= spec.ranges[batch].max:
        return f"denoise has no batch of 1 to {count} branches, for the first dim of its outputs is {batch}"
    return None


class TogetherDenoiser(SerialDenoiser):
    """Evaluates all branches of a window in one call of its engine; apart once memory did not allow it."""

    def __init__(
        self, generator: Generator, engines: Engines, constants: Constants, condition_indices: np.ndarray
    ) -> None:
        super().__init__(generator, engines, constants, condition_indices)
        self._fits = not self.batches  # else the generator itself has them in one call
        self.batches = True

    def predict(
        self, window: np.ndarray, step: int, constants: Constants, branches: Sequence[Branch]
    ) -> list[np.ndarray]:
        """Predict these branches of a window. UsageError: they differ in an input that has no batch."""
        if self._fits and len(branches) > 1:
            try:
                return self._together(window, step, constants, branches)
            except MemoryError:
                self._fits = False
        return super().predict(window, step, constants, branches)

    def _together(
        self, window: np.ndarray, step: int, constants: Constants, branches: Sequence[Branch]
    ) -> list[np.ndarray]:
        generator, batch = self._generator, _batch(self._generator.components["denoise"])
        calls = [asked(generator, window, step, constants, branch) for branch in branches]
        joined = {}
        for tensor in generator.components["denoise"].inputs:
            arrays = [call[tensor.name] for call in calls]
            if tensor.dims[0] == batch:
                joined[tensor.name] = np.concatenate(arrays)
            elif all(_same(array, arrays[0]) for array in arrays):
                joined[tensor.name] = arrays[0]
            else:
                raise UsageError(
                    f"branches together: {generator.name} gives each its own {tensor.name}, which has no "
                    f"dim {batch}; leave it out"
                )
        made = self._engine(**joined)
        parts = {name: np.split(array, len(branches)) for name, array in made.items()}
        return [
            generator.denoise(
                lambda number=number, **_: {name: each[number] for name, each in parts.items()},
                window, step, constants, branch,
            )
            for number, branch in enumerate(branches)
        ]  # fmt: skip


def _same(array: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two arrays are one, or hold equal numbers; those of a device are not waited for."""
    if array is other:
        return True
    return isinstance(array, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(array, other)


def _batch(spec: ComponentSpec) -> int | str:
    """Return the first dim of predictions: a name where windows of a clip can be several."""
    return spec.outputs[0].dims[0]
