"""Names of the precisions an artifact can have, and how a command line chooses one for each component."""

from __future__ import annotations

from collections.abc import Iterable

from engines.errors import UsageError, unknown

PRECISIONS = {
    "fp32": "as the base model",
    "fp16": "half precision, with layers that would overflow left in fp32",
    "bf16": "bfloat16",
    "int8": "8-bit matrix products and convolutions (symmetric QDQ), the rest fp16: for GPUs",
    "int8-fp32": "8-bit matrix products and convolutions (symmetric QDQ), the rest fp32: for processors",
    "fp8": "8-bit floats (E4M3) in matrix products, the rest fp16: Ada, Hopper and newer",
}
NATIVE = "native"  # bf16 where the backend says that this machine computes in it, else fp32; has no artifact


class PrecisionError(UsageError):
    """The precisions asked for are not known, or not for these components."""


def choose_precisions(text: str, components: Iterable[str], to_run: bool = True) -> dict[str, str]:
    """A precision for every component.

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
