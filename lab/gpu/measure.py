"""Measure variants of running one network: warm them up one by one, then time them in interleaved rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.interleave import interleave
from lab.gpu.ceilings import REFUSALS, stop_if_broken, synchronize, timed, words_of
from lab.gpu.counted import count, crossing
from lab.gpu.networks import NETWORKS, Model
from lab.gpu.random_init import inputs_of
from lab.gpu.run import Emit, Place
from lab.gpu.variants import DTYPES, Call, as_taken, parse, prepare

ROUNDS, TINY_ROUNDS = 3, 1
LEAST = 0.05  # seconds a round gives each variant: short calls are repeated
WARM_UP = 2  # calls
CALLS, SHOWN, NAME = 2, 20, 110  # that are profiled; kernels, and characters of their names


def measure_network(place: Place, emit: Emit, name: str, variants: Sequence[str]) -> None:
    """Emit the work counted of a network's call, rows of all variants, anew after each run, a profile.

    A row's error is that of a tiny network of the same kind to fp32 on the processor, `apart` the distance of
    the full one from what the first variant gives. A variant that cannot run has only its reason.
    """
    torch.backends.cudnn.allow_tf32 = False  # on by default, and then convolutions are not in fp32
    model = NETWORKS[name]("tiny" if place.tiny else "full")
    dtype = parse(variants[0])[1]
    meta = model.build("meta", DTYPES[dtype])
    given = as_taken(model, inputs_of(model.spec, model.sizes, "meta"), DTYPES[dtype])
    emit("work", asdict(count(meta, given)) | {"crossing": crossing(model.spec, model.sizes)})
    errors = _errors(name, variants, place, emit)
    inputs = inputs_of(model.spec, model.sizes, place.device)
    calls: dict[str, Call] = {}
    rows: dict[str, dict] = {}
    first: Tensor | None = None
    for variant in variants:
        emit("at", variant)
        try:
            calls[variant], rows[variant], made = _begin(model, variant, inputs, place.device)
        except REFUSALS as refusal:
            stop_if_broken(refusal)
            rows[variant] = {"refused": words_of(refusal)}
        else:
            first = made if first is None else first
            rows[variant] |= {**errors[variant], "apart": distance(made, first)}
        emit("ways", rows)
        free()
    _rounds(calls, rows, place, emit)
    bare = [variant for variant in calls if "engine" not in variant]
    if bare:
        best = min(bare, key=lambda variant: rows[variant]["seconds"])
        emit("at", f"the profile of {best}")
        emit("profile", {"way": best, **profiled(calls[best], place.device)})
    calls.clear()
    torch.compiler.reset()  # after eight versions of a network torch would run the next ones as they are
    free()


def distance(made: Tensor, expected: Tensor) -> float:
    """Return the length of the difference in parts of the expected's; NaN where something is not finite."""
    made, expected = made.float(), expected.to(made.device).float()
    return float((made - expected).norm() / expected.norm())


def profiled(call: Call, device: str) -> dict:
    """Return the kernels of a call, the longest first, and `idle`: the part of its time in which none runs.

    On a processor operations take the place of kernels.
    """
    seconds, cuda = timed(call, device), device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as watching:
        for _ in range(CALLS):
            call()
        synchronize(device)
    time_of = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = [
        {"kernel": event.key[:NAME], "seconds": getattr(event, time_of) / 1e6 / CALLS,
         "launches": event.count / CALLS}
        for event in watching.key_averages()
        if not cuda or event.device_type == torch.autograd.DeviceType.CUDA
    ]  # fmt: skip
    rows = sorted((row for row in rows if row["seconds"]), key=lambda row: -row["seconds"])
    busy = sum(row["seconds"] for row in rows)
    return {"seconds": seconds, "busy": busy, "idle": 1 - busy / seconds, "kernels": rows[:SHOWN]}


def rounds_of(place: Place) -> int:
    """Return how often everything is timed."""
    return TINY_ROUNDS if place.tiny else ROUNDS


def marking(emit: Emit) -> Callable[[str, int], None]:
    """Return what notes, ahead of a run, which one it is: should the process die, the record says where."""
    return lambda name, number: emit("at", f"{name}, round {number}")


def free() -> None:
    """Free memory that nothing refers to any more, the GPU's too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _errors(name: str, variants: Sequence[str], place: Place, emit: Emit) -> dict[str, dict]:
    """Return the tiny network's distance by variant to fp32 on the processor, but of compiled variants."""
    model, found = NETWORKS[name]("tiny"), dict.fromkeys(variants, {})
    inputs = inputs_of(model.spec, model.sizes, "cpu")
    expected = prepare(model, "eager:fp32", inputs, "cpu")()
    for variant in variants:
        if "compile" in variant:
            continue
        emit("at", f"{variant}, tiny")
        try:
            made = prepare(model, variant, [each.to(place.device) for each in inputs], place.device)()
            found[variant] = {"error": distance(made, expected)}
        except REFUSALS as refusal:
            stop_if_broken(refusal)
            found[variant] = {"error": words_of(refusal)}
    return found


def _begin(model: Model, variant: str, inputs: Sequence[Tensor], device: str) -> tuple[Call, dict, Tensor]:
    """Return the warmed-up call, its row as known before rounds, and its result."""
    start = time.perf_counter()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    call = prepare(model, variant, inputs, device)
    for _ in range(WARM_UP):
        made = call()
    synchronize(device)
    row = {"start_seconds": round(time.perf_counter() - start, 2)}
    if device == "cuda":
        row["memory_mb"] = round((torch.cuda.max_memory_allocated() - before) / 1e6)
    made = made.clone()  # before the next call writes over it
    return call, row | {"seconds": timed(call, device), "rounds": 0}, made


def _rounds(calls: dict[str, Call], rows: dict[str, dict], place: Place, emit: Emit) -> None:
    seconds: dict[str, list[float]] = {variant: [] for variant in calls}
    times = {variant: max(1, int(LEAST / max(rows[variant]["seconds"], 1e-6))) for variant in calls}
    runs = {variant: partial(timed, call, place.device, times[variant]) for variant, call in calls.items()}
    for variant, _, took in interleave(runs, rounds_of(place), marking(emit)):
        seconds[variant].append(took)
        each = seconds[variant]
        spread = {"least": min(each), "most": max(each), "rounds": len(each)}
        rows[variant] |= {"seconds": statistics.median(each), **spread}
        emit("ways", rows)
