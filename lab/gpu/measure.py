"""Ways to run one network, beside each other: warmed up one by one, then timed in interleaved rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.timing import rotated
from lab.gpu.ceilings import REFUSALS, stop_if_broken, synchronize, timed, words_of
from lab.gpu.counted import count, crossing
from lab.gpu.filled import inputs_of
from lab.gpu.networks import NETWORKS, Subject
from lab.gpu.run import Emit, Place
from lab.gpu.ways import DTYPES, Call, as_taken, parse, prepare

ROUNDS, TINY_ROUNDS = 3, 1
LEAST = 0.05  # seconds a round gives each way: short calls are repeated
WARM_UP = 2  # calls
CALLS, SHOWN, NAME = 2, 20, 110  # that are profiled; kernels, and characters of their names


def measure_network(place: Place, emit: Emit, name: str, ways: Sequence[str]) -> None:
    """Emit the work counted of a network's call, a row for each way and again after every round, a profile.

    A row's error is that of a tiny network of the same kind to fp32 on the processor, `apart` the distance of
    the full one from what the first way gives. A way that cannot run has only its reason.
    """
    torch.backends.cudnn.allow_tf32 = False  # on by default, and then convolutions are not in fp32
    subject = NETWORKS[name]("tiny" if place.tiny else "full")
    dtype = parse(ways[0])[1]
    meta = subject.build("meta", DTYPES[dtype])
    given = as_taken(subject, inputs_of(subject.spec, subject.sizes, "meta"), DTYPES[dtype])
    emit("work", asdict(count(meta, given)) | {"crossing": crossing(subject.spec, subject.sizes)})
    errors = _errors(name, ways, place, emit)
    inputs = inputs_of(subject.spec, subject.sizes, place.device)
    calls: dict[str, Call] = {}
    rows: dict[str, dict] = {}
    first: Tensor | None = None
    for way in ways:
        emit("at", way)
        try:
            calls[way], rows[way], made = _begin(subject, way, inputs, place.device)
        except REFUSALS as refusal:
            stop_if_broken(refusal)
            rows[way] = {"refused": words_of(refusal)}
        else:
            first = made if first is None else first
            rows[way] |= {**errors[way], "apart": distance(made, first)}
        emit("ways", rows)
        free()
    _rounds(calls, rows, place, emit)
    bare = [way for way in calls if "engine" not in way]
    if bare:
        best = min(bare, key=lambda way: rows[way]["seconds"])
        emit("at", f"the profile of {best}")
        emit("profile", {"way": best, **profiled(calls[best], place.device)})
    calls.clear()
    torch.compiler.reset()  # after eight versions of a network torch would run the next ones as they are
    free()


def distance(made: Tensor, expected: Tensor) -> float:
    """The difference's length in parts of what is expected; NaN where something is not finite."""
    made, expected = made.float(), expected.to(made.device).float()
    return float((made - expected).norm() / expected.norm())


def profiled(call: Call, device: str) -> dict:
    """The kernels of a call, the longest first, and `idle`: the part of its time in which none runs.

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
    """How often everything is timed."""
    return TINY_ROUNDS if place.tiny else ROUNDS


def free() -> None:
    """Give back what nobody refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _errors(name: str, ways: Sequence[str], place: Place, emit: Emit) -> dict[str, dict]:
    """By way, the tiny network's distance to fp32 on the processor; compiled take too long."""
    subject, found = NETWORKS[name]("tiny"), dict.fromkeys(ways, {})
    inputs = inputs_of(subject.spec, subject.sizes, "cpu")
    expected = prepare(subject, "eager:fp32", inputs, "cpu")()
    for way in ways:
        if "compile" in way:
            continue
        emit("at", f"{way}, tiny")
        try:
            made = prepare(subject, way, [each.to(place.device) for each in inputs], place.device)()
            found[way] = {"error": distance(made, expected)}
        except REFUSALS as refusal:
            stop_if_broken(refusal)
            found[way] = {"error": words_of(refusal)}
    return found


def _begin(subject: Subject, way: str, inputs: Sequence[Tensor], device: str) -> tuple[Call, dict, Tensor]:
    """The warmed-up call, its row as known before rounds, and what it gives."""
    start = time.perf_counter()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    call = prepare(subject, way, inputs, device)
    for _ in range(WARM_UP):
        made = call()
    synchronize(device)
    row = {"start_seconds": round(time.perf_counter() - start, 2)}
    if device == "cuda":
        row["memory_mb"] = round((torch.cuda.max_memory_allocated() - before) / 1e6)
    return call, row | {"seconds": timed(call, device), "rounds": 0}, made.clone()


def _rounds(calls: dict[str, Call], rows: dict[str, dict], place: Place, emit: Emit) -> None:
    seconds: dict[str, list[float]] = {way: [] for way in calls}
    times = {way: max(1, int(LEAST / max(rows[way]["seconds"], 1e-6))) for way in calls}
    for number in range(rounds_of(place) if calls else 0):
        for way in rotated(list(calls), number):
            emit("at", f"{way}, round {number + 1}")
            seconds[way].append(timed(calls[way], place.device, times[way]))
        for way, each in seconds.items():
            spread = {"least": min(each), "most": max(each), "rounds": len(each)}
            rows[way] |= {"seconds": statistics.median(each), **spread}
        emit("ways", rows)
