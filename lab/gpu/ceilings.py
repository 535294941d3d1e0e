"""Measure what the machine itself can do, and whether it draws the noise that `CudaNormal` predicts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from engines.doctor import processor, version
from generators.noise import CudaNormal
from lab.gpu.run import Emit, Place

MATRICES = 8192  # their width; smaller ones leave a large GPU idle
BYTES = 2 << 30  # that are copied, many times what caches hold
TINY = 256  # of both, for a rehearsal
TIMES = 10
# Batch, heads, tokens, width of a head: Wan 1.3B at 832x480x81; MimicMotion at 576x1024x72, over space at
# three levels and over time at the finest.
ATTENTION = {
    "wan-81": (1, 12, 34320, 128), "mimicmotion-72, 72x128": (72, 5, 9216, 64),
    "mimicmotion-72, 36x64": (72, 10, 2304, 64), "mimicmotion-72, 18x32": (72, 20, 576, 64),
    "mimicmotion-72, time": (9216, 5, 72, 64),
}  # fmt: skip
KERNELS = {"default": None, "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
NOISE = ((1000,), (1, 3, 576, 1024), (1, 16, 4, 72, 128))  # drawn one after the other, as MimicMotion does
# What torch raises where this GPU, or this version, cannot do it. TypeError: other arguments.
REFUSALS = (MemoryError, RuntimeError, NotImplementedError, ValueError, TypeError, ImportError)
PACKAGES = ("torch", "triton", "diffusers", "transformers", "numpy", "onnxruntime")


def measure_machine(place: Place, emit: Emit) -> None:
    """Emit what is installed, the noise's error, and rates: operations or bytes a second, by what is done."""
    emit("installed", {name: found for name in PACKAGES if (found := version(name))})
    emit("processor", f"{processor()}, {os.cpu_count()} cores")
    cuda = place.device == "cuda"
    emit("name", torch.cuda.get_device_name() if cuda else "a rehearsal on a processor")
    if cuda:
        emit("noise_error", noise_error())
    rates: dict[str, float | str] = {}
    for name, work, call in (*_copies(place), *_products(place), *_attentions(place)):
        try:
            rates[name] = work / min(timed(call, place.device) for _ in range(2 if place.tiny else TIMES))
        except REFUSALS as refusal:
            stop_if_broken(refusal)
            rates[name] = words_of(refusal)
        emit("rates", rates)


def noise_error() -> float:
    """Return the largest difference of what the GPU draws after manual_seed from what CudaNormal predicts."""
    about = torch.cuda.get_device_properties(0)
    draw = CudaNormal(42, about.multi_processor_count, about.max_threads_per_multi_processor)
    torch.manual_seed(42)
    drawn = [(draw(shape), torch.randn(shape, device="cuda").cpu().numpy()) for shape in NOISE]
    return max(float(np.abs(own - theirs).max()) for own, theirs in drawn)


def timed(call: Callable[[], object], device: str, times: int = 1) -> float:
    """Return seconds a call, from an idle device until it is idle again."""
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


def words_of(refusal: BaseException) -> str:
    """Return the kind of an error and the first line of its text."""
    lines = [line for line in str(refusal).splitlines() if line.strip()]
    return f"{type(refusal).__name__}: {lines[0] if lines else ''}"[:300]


def stop_if_broken(refusal: BaseException) -> None:
    """Raise it again if it has left the GPU such that nothing more can run in this process."""
    if torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda").cpu()
        except RuntimeError:
            raise refusal from None


def _copies(place: Place) -> Iterator[tuple[str, float, Callable]]:
    """Yield copies on the device, from and to ordinary and pinned memory, with the bytes that each moves."""
    size = TINY if place.tiny else BYTES
    one, other = (torch.ones(size, dtype=torch.uint8, device=place.device) for _ in range(2))
    yield "copy", 2 * size, partial(other.copy_, one)
    part = one[: size // 4]
    for name, pin in (("pageable", False), ("pinned", True))[: 2 if place.device == "cuda" else 1]:
        here = torch.ones(len(part), dtype=torch.uint8, pin_memory=pin)
        yield f"to the device, {name}", len(part), partial(part.copy_, here)
        yield f"from the device, {name}", len(part), partial(here.copy_, part)
    yield "from the device, into fresh pages", len(part), partial(part.to, "cpu", copy=True)


def _products(place: Place) -> Iterator[tuple[str, float, Callable]]:
    """Yield products of random square matrices (GPUs are faster on zeros), with both accumulations."""
    width, device = TINY if place.tiny else MATRICES, place.device
    cuda, work = torch.backends.cuda.matmul, 2 * width**3
    a, b = (torch.randn(width, width, device=device) for _ in range(2))
    yield "fp32", work, partial(torch.mm, a, b)
    for name, dtype, switch, value in (
        ("bf16", torch.bfloat16, None, None),
        ("bf16, whole accumulation", torch.bfloat16, "allow_bf16_reduced_precision_reduction", False),
        ("fp16", torch.float16, None, None),
        ("fp16, fast accumulation", torch.float16, "allow_fp16_accumulation", True),
    ):
        before = switch and getattr(cuda, switch)
        if switch:
            setattr(cuda, switch, value)
        yield name, work, partial(torch.mm, a.to(dtype), b.to(dtype))
        if switch:
            setattr(cuda, switch, before)
    x, y = (each.to(torch.float8_e4m3fn) for each in (a, b.t()))
    scales = torch.ones(width, 1, device=device), torch.ones(1, width, device=device)
    for name, fast in (("fp8", False), ("fp8, fast accumulation", True)):
        call = partial(torch._scaled_mm, x, y, *scales, out_dtype=torch.bfloat16, use_fast_accum=fast)
        yield name, work, call


def _attentions(place: Place) -> Iterator[tuple[str, float, Callable]]:
    """Yield attention in bf16 by the kernel that torch chooses, and by two others."""
    for name, shape in ATTENTION.items():
        shape = (2, 2, 64, 32) if place.tiny else shape
        query, key, value = (torch.randn(shape, device=place.device).bfloat16() for _ in range(3))
        work = 4 * shape[0] * shape[1] * shape[2] ** 2 * shape[3]
        for kernel, backend in KERNELS.items():

            def call(backend=backend, inputs=(query, key, value)) -> None:
                if backend is None:
                    F.scaled_dot_product_attention(*inputs)
                    return
                with sdpa_kernel([backend]):
                    F.scaled_dot_product_attention(*inputs)

            yield f"attention of {name}, {kernel}", work, call
