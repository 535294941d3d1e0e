"""The precisions an artifact can have, in one table, and how a command line chooses one for each component.

A precision is added by one entry in PRECISIONS. Only a new way to quantise layers needs code of its own: a
function and its entry in SCHEMES of optimize/precision/quantize.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from engines.errors import EngineError, UsageError, unknown


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may be from a reference: errors in parts of its RMS, or of 255 levels for pixels."""

    cosine: float
    mean: float
    most: float


# About ten times what the bundled components measure, so that a wrong graph is out and rounding is in.
IN_8_BITS = Tolerance(0.98, 0.15, 4.0)


@dataclass(frozen=True)
class Precision:
    """A precision: what its graphs compute in, and what they may cost.

    layers: how matrix products are quantised, "int8" or "fp8"; None if they are not. compute: the float type
    of everything else, by NumPy's name. capability: the least compute capability of an NVIDIA GPU, times ten.
    """

    tolerance: Tolerance
    compute: str = "float32"
    layers: str | None = None
    capability: int = 0


PRECISIONS = {
    "fp32": Precision(Tolerance(0.99999, 1e-4, 1e-2)),
    "fp16": Precision(Tolerance(0.9999, 1e-2, 0.5), "float16"),  # layers that would overflow are left in fp32
    "bf16": Precision(Tolerance(0.998, 5e-2, 2.0), "bfloat16", capability=80),
    # Matrix products and convolutions in 8 bits (symmetric QDQ): for GPUs, and for processors.
    "int8": Precision(IN_8_BITS, "float16", "int8"),
    "int8-fp32": Precision(IN_8_BITS, "float32", "int8"),
    # 8-bit floats (E4M3) in matrix products: Ada, Hopper and newer.
    "fp8": Precision(IN_8_BITS, "float16", "fp8", capability=89),
}
NATIVE = "native"  # bf16 where the backend says that this machine computes in it, else fp32; has no artifact


class PrecisionError(UsageError):
    """A precision that is not known, or not for these components."""


def supported(compute: Collection[str], layers: Collection[str | None] = (None,)) -> tuple[str, ...]:
    """List the precisions for a backend that computes in these float types and layers."""
    names = PRECISIONS.items()
    return tuple(name for name, each in names if each.compute in compute and each.layers in layers)


def require(precision: str, known: Collection[str], where: str) -> None:
    """Raise EngineError unless a precision is among the known ones; where: who knows them, as "torch"."""
    if precision not in known:
        raise EngineError(f"{where} has no {precision}; choose {', '.join(known)}")


def choose_precisions(text: str, components: Iterable[str], to_run: bool = True) -> dict[str, str]:
    """Read a precision for every component.

    text: one precision for all, then exceptions: "fp16" or "fp16,denoise=int8"; to run, NATIVE too.
    PrecisionError names what is unknown.
    """
    components = list(components)
    known = (*PRECISIONS, NATIVE) if to_run else PRECISIONS
    chosen = {}
    for part in text.split(","):
        component, _, precision = part.strip().rpartition("=")
        if component and component not in components:
            raise PrecisionError(unknown("component", component, components))
        if precision not in known:
            raise PrecisionError(unknown("precision", precision, known))
        chosen.update(dict.fromkeys([component] if component else components, precision))
    missing = [component for component in components if component not in chosen]
    if missing:
        raise PrecisionError(f"precision {text!r} gives {', '.join(missing)} none; begin with one for all")
    return chosen


def select(precisions: Mapping[str, str], components: str | None) -> dict[str, str]:
    """Return the precisions of the components in a comma list (None: all). PrecisionError: an unknown one."""
    names = list(precisions) if components is None else [name.strip() for name in components.split(",")]
    for name in names:
        if name not in precisions:
            raise PrecisionError(unknown("component", name, precisions))
    return {name: precisions[name] for name in names}
