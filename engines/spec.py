"""What a component takes and gives, written once, and the check of a call against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engines.errors import EngineError

if TYPE_CHECKING:
    import torch


def failure(text: str, path: Path | None = None) -> EngineError | MemoryError:
    """Make a backend's message an error: MemoryError if it speaks of allocating, else EngineError.

    path: of the file that it speaks of, whose name says nothing of that.
    """
    said = text.replace(str(path), "") if path else text
    return MemoryError(text) if "alloc" in said.lower() else EngineError(text)


class ShapeError(ValueError):
    """An input that does not fit a component's spec."""


class Cadence(str, Enum):
    """The occasions on which a component runs."""

    REQUEST = "once per request"
    CHUNK = "once per frame chunk"
    WINDOW = "once per window"
    STEP = "once per window, branch and step"


@dataclass(frozen=True)
class DimRange:
    """The sizes that a named dim may take; opt is the one to optimise for, as in TensorRT's profiles."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 < self.min <= self.opt <= self.max:
            raise ValueError(f"a range needs 0 < min <= opt <= max, got {self.min}, {self.opt}, {self.max}")


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor: dims mix sizes and names of sizes, dtype is NumPy's name."""

    name: str
    dims: tuple[int | str, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.dims, tuple | list):
            raise ValueError(f"{self.name}: dims are a tuple, as ('n', 3), not {self.dims!r}; a comma lost?")

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.dims))}) {self.dtype}"


@dataclass(frozen=True)
class ComponentSpec:
    """One network of a generator: whatever its outputs depend on, beside weights, is an input here.

    ranges gives the sizes of every named dim of the inputs.
    """

    name: str
    cadence: Cadence
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: Mapping[str, DimRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, each in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not isinstance(each, tuple | list):
                raise ValueError(f"{self.name}: {what} are a tuple of TensorSpec, not {each}; a comma lost?")
        if not isinstance(self.ranges, Mapping):
            raise ValueError(f"{self.name}: ranges are {{dim: DimRange}}, not {self.ranges!r}")
        named = {dim for tensor in self.inputs for dim in tensor.dims if isinstance(dim, str)}
        if named != set(self.ranges):
            raise ValueError(
                f"{self.name}: ranges are given for {sorted(self.ranges)}, "
                f"but its inputs name the dims {sorted(named)}"
            )

    def described(self) -> dict[str, dict]:
        """Give the names, shapes and dtypes as plain data, for manifests."""
        return {
            "inputs": {tensor.name: [list(tensor.dims), tensor.dtype] for tensor in self.inputs},
            "outputs": {tensor.name: [list(tensor.dims), tensor.dtype] for tensor in self.outputs},
            "ranges": {name: [r.min, r.opt, r.max] for name, r in self.ranges.items()},
        }

    def check(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Check a call, and return its named dims' sizes. ShapeError names an input that does not fit."""
        expected = [tensor.name for tensor in self.inputs]
        if set(arrays) != set(expected):
            raise ShapeError(f"{self.name} takes {expected}, got {sorted(arrays)}")
        sizes: dict[str, int] = {}
        for tensor in self.inputs:
            array = arrays[tensor.name]
            if array.dtype.name != tensor.dtype or array.ndim != len(tensor.dims):
                raise ShapeError(f"{self.name}: expected {tensor}, got {array.shape} {array.dtype.name}")
            for dim, size in zip(tensor.dims, array.shape, strict=True):
                self._fit(tensor, dim, size, sizes)
        return sizes

    def check_outputs(self, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
        """Raise unless outputs have the spec's shapes: a backend's library may give others without a word.

        sizes: of the call's dims, from `check`. MemoryError: an output is empty, as OpenVINO's are when
        memory is short. EngineError: it has another shape.
        """
        for tensor in self.outputs:
            shape = arrays[tensor.name].shape
            wanted = tuple(
                sizes.get(dim, size) if isinstance(dim, str) else dim
                for dim, size in zip(tensor.dims, shape, strict=False)
            )
            if 0 in shape:
                raise MemoryError(f"{self.name}: {tensor.name} came empty, {shape}: no memory for {tensor}")
            if shape != wanted or len(shape) != len(tensor.dims):
                raise EngineError(f"{self.name}: {tensor.name} came as {shape}, expected {tensor}")

    def _fit(self, tensor: TensorSpec, dim: int | str, size: int, sizes: dict[str, int]) -> None:
        if isinstance(dim, int):
            if size != dim:
                raise ShapeError(
                    f"{self.name}: {tensor.name} needs a dim of {dim}, got {size}; expected {tensor}"
                )
            return
        limits = self.ranges[dim]
        if not limits.min <= size <= limits.max:
            raise ShapeError(
                f"{self.name}: {dim} of {tensor.name} must lie in {limits.min}..{limits.max}, got {size}"
            )
        if sizes.setdefault(dim, size) != size:
            raise ShapeError(f"{self.name}: {dim} is {sizes[dim]} in one input and {size} in {tensor.name}")


class Model(Protocol):
    """A generator as the building of engines sees it."""

    name: str
    components: Mapping[str, ComponentSpec]
    fingerprint_files: Sequence[Path]  # weights, and the code of the networks
    # May be left out: loras: Mapping[str, Sequence[str]], adapters merged into components' weights, and
    # lora_files: Sequence[Path], all of their files in that order.

    def build(self, component: str) -> torch.nn.Module:
        """Build the component as a torch module with loaded weights."""
        ...


def merged(model: Model, component: str) -> list[str] | None:
    """Name the adapters that are merged into a component's weights, or return None: there are none."""
    return [*getattr(model, "loras", {}).get(component, ())] or None


class Engine(Protocol):
    """A backend's way to run one component; every backend's engines have these members."""

    spec: ComponentSpec
    path: Path | None  # the built file that it runs
    # Of those that can leave outputs on a device: set from outside; then floating-point outputs are the
    # place's arrays, and inputs may be; pixels come to the host as ever. stream: the engine's own, if it has.
    # place: Place | None = None

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name from inputs by name, which are checked against the spec."""
        ...

    def close(self) -> None:
        """Free what the engine holds; calling it afterwards is an error."""
        ...
