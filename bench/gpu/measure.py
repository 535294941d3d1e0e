"""Ways to run one network, beside each other: warmed up one by one, then timed in interleaved rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from bench.gpu.ceilings import ceilings, synchronize, timed
from bench.gpu.counted import Work, count
from bench.gpu.subjects import Subject, load_subject
from bench.gpu.ways import DTYPES, Call, Place, Way, prepare, tensors_for
from bench.timing import rotated
from engines.spec import EngineError

ROUNDS, TINY_ROUNDS = 7, 2
LEAST = 0.05  # seconds a round gives each way: short calls are repeated
WARM_UP = 3  # calls; with CUDA graphs the second records and the third is the first replay
# What a way that cannot be had here raises. TypeError: another torch has other arguments.
REFUSALS = (EngineError, MemoryError, RuntimeError, NotImplementedError, ValueError, TypeError, ImportError)
Emit = Callable[[dict], None]


def measure(name: str, ways: Sequence[str], place: Place, emit: Emit) -> None:
    """Emit figures of each way to run a subject, and again after every round: a later row replaces one.

    First the work counted of it, the ceilings of this machine at this time, and the floor that follows:
    operations at the rate of a bf16 product (fp32 where there is none), or least bytes at that of a copy,
    whichever takes longer. A way that cannot run has only its reason, under "refused".
    """
    subject = load_subject(name, place.tiny)
    found = ceilings(place.device, place.tiny)
    work = counted(subject, "bf16")
    floor = work.floor(found.get("bf16", found["fp32"]), found["copy"])
    emit({"calls": subject.calls, "work": asdict(work), "ceilings": found, "floor_seconds": floor})
    emit({"crossing_bytes": crossing(subject)})
    expected = _reference(subject, place)
    calls: dict[str, Call] = {}
    rows: dict[str, dict] = {}
    for text in ways:
        emit({"begun": text})
        try:
            calls[text], rows[text] = _begin(subject, text, place, expected)
        except getattr(torch, "AcceleratorError", ()):  # nothing more can run in this process
            raise
        except REFUSALS as refusal:
            rows[text] = {"refused": words_of(refusal)}
        emit({"way": text, **rows[text]})
        free()
    _rounds(calls, rows, place, floor, emit)


def counted(subject: Subject, dtype: str) -> Work:
    """The work of a call in that dtype."""
    module = subject.build("meta", DTYPES[dtype])
    return count(module, tensors_for(subject, "meta", DTYPES[dtype]))


def crossing(subject: Subject) -> int:
    """Bytes between host and device if inputs and outputs lie on the host, as those of an engine do."""
    sizes = subject.sizes
    tensors = (*subject.spec.inputs, *subject.spec.outputs)
    shapes = (torch.Size(d if isinstance(d, int) else sizes[d] for d in tensor.dims) for tensor in tensors)
    kinds = (getattr(torch, tensor.dtype) for tensor in tensors)
    return sum(shape.numel() * kind.itemsize for shape, kind in zip(shapes, kinds, strict=True))


def forget() -> None:
    """Drop what was compiled: after eight versions of a network torch runs the next ones as they are."""
    torch.compiler.reset()
    free()


def free() -> None:
    """Give back what nobody refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def words_of(refusal: BaseException) -> str:
    """The kind of an error and the first line of its text."""
    lines = [line for line in str(refusal).splitlines() if line.strip()]
    return f"{type(refusal).__name__}: {lines[0] if lines else ''}"[:300]


def _reference(subject: Subject, place: Place) -> torch.Tensor | None:
    """What the network gives in fp32, on the host; None where it does not fit into memory."""
    torch.backends.cudnn.allow_tf32 = False  # on by default, and then convolutions are not in fp32
    try:
        made = prepare(subject, Way.parse("eager:fp32"), place)().float().cpu()
    except (MemoryError, torch.OutOfMemoryError):
        made = None
    free()
    return made


def _begin(subject: Subject, text: str, place: Place, expected: torch.Tensor | None) -> tuple[Call, dict]:
    """The warmed-up call, and what is known of it before rounds: start, memory, error, one time."""
    way, cuda = Way.parse(text), place.device.startswith("cuda")
    start = time.perf_counter()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    call = prepare(subject, way, place)
    for _ in range(WARM_UP):
        made = call()
    synchronize(place.device)
    row = {"start_seconds": round(time.perf_counter() - start, 2)}
    if cuda:
        row["peak_memory_mb"] = round((torch.cuda.max_memory_allocated() - before) / 1e6)
    made = made.float().cpu()
    row["finite"] = bool(torch.isfinite(made).all())
    if expected is not None and "plain" not in way.features:  # whose weights are others
        row["error"] = float((made - expected).norm() / expected.norm())
    return call, row | {"seconds": timed(call, place.device), "rounds": 0}


def _rounds(calls: dict[str, Call], rows: dict[str, dict], place: Place, floor: float, emit: Emit) -> None:
    seconds: dict[str, list[float]] = {text: [] for text in calls}
    times = {text: max(1, int(LEAST / max(rows[text]["seconds"], 1e-6))) for text in calls}
    for number in range(TINY_ROUNDS if place.tiny else ROUNDS):
        for text in rotated(list(calls), number):
            emit({"begun": text})
            seconds[text].append(timed(calls[text], place.device, times[text]))
        for text, each in seconds.items():
            median = statistics.median(each)
            spread = {"seconds": median, "least": min(each), "most": max(each), "rounds": len(each)}
            rows[text] |= {**spread, "to_floor": median / floor}
            emit({"way": text, **rows[text]})
