"""Start an engine for every component of a generator, from the names of a backend and of precisions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engines.errors import EngineError
from engines.precision import NATIVE
from engines.shared_parts import sharing
from engines.spec import Engine, Model
from engines.start_times import starting

# Each backend is a file and the function in it that starts one component's engine; see BackendFile.
BACKENDS = {
    "tensorrt": ("engines.backends.tensorrt_backend", "start"),
    "openvino": ("engines.backends.openvino_backend", "start"),
    "onnxruntime": ("engines.backends.onnxruntime_backend", "start"),
    "onnxruntime-tensorrt": ("engines.backends.onnxruntime_backend", "start_tensorrt"),
    "torch": ("engines.backends.torch_backend", "start"),
    "torch-compile": ("engines.backends.torch_backend", "start_compiled"),
}
DEFAULT = "default"
ATTENTION = (DEFAULT, "cudnn", "flash", "sage")  # ways to compute it, of which a backend may offer the others
AUTOMATIC = ("tensorrt", "openvino", "onnxruntime", "torch")


class BackendFile(Protocol):
    """The file of a backend. It has these two functions, and may have the names below.

    has_bf16(device): whether the device computes in bfloat16; left out, it does not. STARTS_FROM: the suffix
    of the built files that it loads, ".onnx" or ".engine"; left out, it starts from a torch module with its
    weights. graph_precision(precision): the precision of the ONNX graph that it starts from, if another.
    packages(device): what to install, by import name, where no import statement of the file says so.
    open_attention(name): what makes its engines compute attention in one of the ways of ATTENTION on a GPU, a
    context manager's maker that is set as their `attention`; left out, it has but its own.
    """

    def why_not(self, device: str) -> str | None:
        """Return None if the backend runs on that device here, else what is missing and what to do."""
        ...

    def start(self, model: Model, component: str, precision: str, device: str, folder: Path) -> Engine:
        """Start one component's engine; EngineError if it lacks the precision or a built file in folder."""
        ...


@dataclass(frozen=True)
class Choice:
    """How to run a generator: a backend or "auto", a precision per component, a device, the built files.

    attention: how it is computed, one of ATTENTION.
    """

    backend: str
    precisions: Mapping[str, str]
    device: str
    folder: Path
    attention: str = DEFAULT


def start_engines(model: Model, choice: Choice, say: Callable[[str], None]) -> tuple[str, dict[str, Engine]]:
    """Start the engines; return the backend's name and an engine per component. EngineError if it cannot.

    "auto" takes the first backend that runs here and has everything, and says which and why not the others.
    """
    if choice.backend not in ("auto", *BACKENDS):
        raise EngineError(f"no backend {choice.backend!r}; choose auto, {', '.join(BACKENDS)}")
    if choice.backend != "auto":
        return choice.backend, _start(model, choice, choice.backend)
    refusals = []
    for backend in AUTOMATIC:
        try:
            engines = _start(model, choice, backend)
        except EngineError as error:
            refusals.append(f"{backend}: {str(error).splitlines()[0]}")
            continue
        say("\n".join([*(f"not {refusal}" for refusal in refusals), f"backend: {backend}"]))
        return backend, engines
    raise EngineError("\n".join(["no backend can run this:", *refusals]))


def native_precision(backend: str, device: str) -> str:
    """Resolve "native": bf16 if the backend says that the device computes in it, else fp32."""
    return "bf16" if _optional(backend, "has_bf16", lambda device: False)(device) else "fp32"


def starts_from(backend: str) -> str | None:
    """Return the suffix of the files that the backend loads, as ".onnx"; None: it needs torch modules."""
    return _optional(backend, "STARTS_FROM", None)


def graph_precision(backend: str, precision: str) -> str:
    """Return the precision of the ONNX graph that the backend needs for a precision; fp32 for "native"."""
    if precision == NATIVE:
        return "fp32"  # bf16 starts from that graph too
    return _optional(backend, "graph_precision", lambda precision: precision)(precision)


def packages(backend: str, device: str) -> dict[str, str]:
    """Name what to install for the backend, by import name, where its imports do not say so."""
    return _optional(backend, "packages", lambda device: {})(device)


def precisions_on(backend: str, choice: Choice) -> dict[str, str]:
    """Resolve the choice's precisions to those that the backend runs on this machine."""
    return {
        component: native_precision(backend, choice.device) if precision == NATIVE else precision
        for component, precision in choice.precisions.items()
    }


def allowed_threads() -> int:
    """Return how many threads an engine may use: the least of OMP_NUM_THREADS and this process's cores.

    0, for the whole machine, leaves the number to the runtime, which then also binds threads to cores. Torch
    heeds both limits by itself. ONNX Runtime counts cores that the process may not use, and neither it nor
    OpenVINO reads OMP_NUM_THREADS, by which Ray gives an actor its share of a machine.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # "4,2" if parallel regions nest
    if asked.isdecimal() and int(asked):
        own = min(own, int(asked))
    return own if own < os.cpu_count() else 0


def open_attention(name: str, device: str, backend: str) -> Callable[[], object] | None:
    """Return what makes a backend compute attention in that way while its block runs; None for its own.

    EngineError: no such name, another backend, or what it needs is missing.
    """
    if name not in ATTENTION:
        raise EngineError(f"attention: no {name!r}; choose {', '.join(ATTENTION)}")
    if name == DEFAULT:
        return None
    opening = _optional(backend, "open_attention", None)
    if opening is None:
        offering = [each for each in BACKENDS if _optional(each, "open_attention", None)]
        offers = " and ".join(offering)
        raise EngineError(f"attention: {name} is for {offers}; {backend} has its own, leave it out")
    if not device.startswith("cuda"):
        raise EngineError(f"attention: {name} runs on cuda, not on {device}; leave it out")
    return opening(name)


def backend_module(backend: str) -> BackendFile:
    """Import the file of a backend, which imports nothing heavy by itself."""
    return importlib.import_module(BACKENDS[backend][0])


def _optional(backend: str, name: str, default: object) -> object:
    return getattr(backend_module(backend), name, default)


def _start(model: Model, choice: Choice, backend: str) -> dict[str, Engine]:
    module = backend_module(backend)
    reason = module.why_not(choice.device)
    if reason:
        raise EngineError(reason)
    attention = open_attention(choice.attention, choice.device, backend)
    start, engines, precisions = getattr(module, BACKENDS[backend][1]), {}, precisions_on(backend, choice)
    parts: dict[str, dict] = {precision: {} for precision in precisions.values()}
    with ExitStack() as closing:  # whatever stops one, those before it are closed
        for component in model.components:
            precision = precisions[component]
            with starting() as seconds, sharing(parts[precision]):
                engines[component] = start(model, component, precision, choice.device, choice.folder)
            engines[component].start_seconds = seconds
            closing.callback(engines[component].close)
            if attention:
                engines[component].attention = attention
        closing.pop_all()
    return engines
