"""Where the time of one call goes, kernel by kernel, from torch's profiler."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.ceilings import synchronize, timed
from bench.gpu.measure import WARM_UP, Emit
from bench.gpu.subjects import load_subject
from bench.gpu.ways import Place, Way, prepare

CALLS = 2  # that are profiled
SHOWN = 25  # kernels
NAME = 120  # characters of a kernel's name


def profile_way(name: str, text: str, place: Place, emit: Emit) -> None:
    """Emit the kernels of a call of a subject run that way, the longest first, and what they leave idle.

    idle: the part of a call's time, taken without the profiler, in which no kernel runs; below 0 where
    several run at once.
    """
    emit({"begun": text})
    call = prepare(load_subject(name, place.tiny), Way.parse(text), place)
    for _ in range(WARM_UP):
        call()
    seconds = timed(call, place.device)
    cuda = place.device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    with profile(activities=activities) as watching:
        for _ in range(CALLS):
            call()
        synchronize(place.device)
    rows = [_row(event, cuda) for event in watching.key_averages()]
    rows = sorted((row for row in rows if row["seconds"]), key=lambda row: -row["seconds"])
    busy = sum(row["seconds"] for row in rows)
    emit({"way": text, "seconds": seconds, "busy_seconds": busy, "idle": 1 - busy / seconds,
          "kernels": rows[:SHOWN], "others": len(rows[SHOWN:])})  # fmt: skip


def _row(event: object, cuda: bool) -> dict:
    """A kernel's seconds and launches of one call; on a processor an operation's."""
    on_device = event.device_type == torch.autograd.DeviceType.CUDA
    microseconds = event.self_device_time_total if cuda and on_device else 0.0
    if not cuda:
        microseconds = event.self_cpu_time_total
    return {
        "kernel": event.key[:NAME],
        "seconds": microseconds / 1e6 / CALLS,
        "launches": event.count / CALLS,
    }
