"""What the machine itself can do: operations and bytes a second that nothing here can pass."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bench.floor import peak

MATRICES = 8192  # their width; smaller ones leave a large GPU idle
BYTES = 2 << 30  # that are copied, many times what caches hold
TIMES = 10
TINY = 256  # of both, for a rehearsal
RATES = ("fp32", "fp16", "bf16", "fp8")


def ceilings(device: str, tiny: bool) -> dict[str, float]:
    """Operations a second of a large product by precision, and bytes a second by where they go.

    copy counts bytes read and bytes written on the device; to_device and from_device those that cross, from
    and to ordinary memory and pinned. What cannot be had is left out.
    """
    width = TINY if tiny else MATRICES
    found = {}
    for precision in RATES:
        try:
            found[precision] = (
                peak_fp8(device, width) if precision == "fp8" else peak(precision, device, width)
            )
        except (RuntimeError, ValueError):  # ValueError: "_scaled_mm" of GPUs before Ada
            continue
    return {**found, **_bandwidths(device, TINY if tiny else BYTES)}


def peak_fp8(device: str, width: int) -> float:
    """Operations a second of a product of two square matrices of 8-bit floats with a scale a row."""
    a, b = (torch.randn(width, width, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    rows, columns = torch.ones(width, 1, device=device), torch.ones(1, width, device=device)

    def call() -> None:
        torch._scaled_mm(a, b.t(), rows, columns, out_dtype=torch.bfloat16)

    return 2 * width**3 / best(call, device)


def best(call: Callable[[], object], device: str) -> float:
    """The least seconds of a call, after one that does not count."""
    call()
    return min(timed(call, device) for _ in range(TIMES))


def timed(call: Callable[[], object], device: str, times: int = 1) -> float:
    """Seconds a call, from an idle device until it is idle again."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / times


def synchronize(device: str) -> None:
    """Wait until the device has done all its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _bandwidths(device: str, size: int) -> dict[str, float]:
    there, other = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    found = {"copy": 2 * size / best(lambda: other.copy_(there), device)}
    part = there[: size // 8]
    for name, pin in (("", False), ("_pinned", True)):
        if pin and not device.startswith("cuda"):
            continue
        here = torch.ones(len(part), dtype=torch.uint8, pin_memory=pin)
        found[f"to_device{name}"] = len(part) / best(lambda here=here: part.copy_(here), device)
        found[f"from_device{name}"] = len(part) / best(lambda here=here: here.copy_(part), device)
    return found
