"""OpenVINO: a component's ONNX graph on the processor, in fp32, in bfloat16 where it has it, or in 8 bits."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from engines.artifact import Artifact, check_agreement, find_onnx
from engines.device_arrays import contiguous
from engines.errors import EngineError
from engines.files import atomic_write
from engines.load import allowed_threads
from engines.precision import require
from engines.spec import ComponentSpec, Model, TensorSpec, failure
from engines.start_times import timed, timing_first_calls

if TYPE_CHECKING:
    import openvino

STARTS_FROM = ".onnx"
# The precision of the graph that each starts from, and what OpenVINO computes its float parts in. It would
# choose bfloat16 for fp32 graphs by itself on processors with AMX, so the type is always given.
SUPPORTED = {
    "fp32": ("fp32", "f32"), "bf16": ("fp32", "bf16"), "fp16": ("fp16", "f32"),
    "int8": ("int8-fp32", "bf16"), "int8-fp32": ("int8-fp32", "f32"),
}  # fmt: skip
_DIGEST = hashlib.sha256().digest_size


def why_not(device: str) -> str | None:
    """Return None if OpenVINO runs on that device here, else what is missing and what to do."""
    try:
        _openvino()
    except ImportError:
        return "openvino is not installed; run: pip install openvino"
    return None if device == "cpu" else f"openvino runs here on cpu, not on {device}"


def has_bf16(device: str) -> bool:
    """Tell whether this processor computes in bfloat16 (AMX or AVX512-BF16); others only imitate it."""
    return why_not(device) is None and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def graph_precision(precision: str) -> str:
    """Give the precision of the ONNX graph that an engine of this precision starts from."""
    return SUPPORTED.get(precision, (precision,))[0]


def start(model: Model, component: str, precision: str, device: str, folder: Path) -> OpenVinoEngine:
    """Start the component's ONNX artifact. EngineError: it is missing, or cannot run."""
    require(precision, SUPPORTED, "openvino on cpu")
    artifact = find_onnx(folder, model, component, graph_precision(precision))
    return OpenVinoEngine(model.components[component], artifact.path, precision, artifact)


class OpenVinoEngine:
    """An engine that runs one ONNX file; inputs and outputs go by the spec's names.

    precision: one of SUPPORTED. artifact: the file's, to save the compiled graph beside it for the next run.
    EngineError if the file is no ONNX graph, if the processor lacks the precision, or if its names or dtypes
    are not the spec's.
    """

    def __init__(
        self, spec: ComponentSpec, path: Path, precision: str = "fp32", artifact: Artifact | None = None
    ) -> None:
        self.spec, self.path, self.precision = spec, path, precision
        core = _core()
        compute = SUPPORTED[precision][1]
        if compute == "bf16" and not has_bf16("cpu"):
            raise EngineError(
                f"this processor has no bfloat16, which openvino's {precision} needs; try fp32, or native, "
                "which is bf16 where there is one"
            )
        settings = {"INFERENCE_PRECISION_HINT": compute}
        if threads := allowed_threads():  # bound to cores, every process's would go to the same ones
            settings |= {"INFERENCE_NUM_THREADS": str(threads), "ENABLE_CPU_PINNING": "NO"}
        try:
            if artifact:
                compiled = load_or_compile(core, artifact, settings)
            else:
                compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise failure(f"openvino cannot load {path}: {_reason(error)}", path) from error
        inputs, outputs = _dtypes(compiled.inputs, spec.inputs), _dtypes(compiled.outputs, spec.outputs)
        check_agreement(spec, path, inputs, outputs)
        self._request = compiled.create_infer_request()

    @timing_first_calls
    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError."""
        if self._request is None:
            raise ValueError(f"{self.spec.name}: this engine is closed; build another")
        sizes = self.spec.check(arrays)
        try:
            self._request.infer({name: contiguous(array) for name, array in arrays.items()})
        except RuntimeError as error:
            raise failure(f"{self.spec.name}: {_reason(error)}") from error
        # Copied, because the next call writes into the same memory.
        names = [tensor.name for tensor in self.spec.outputs]
        outputs = {name: self._request.get_tensor(name).data.copy() for name in names}
        self.spec.check_outputs(outputs, sizes)
        return outputs

    def close(self) -> None:
        """Drop the compiled graph."""
        self._request = None


def load_or_compile(
    core: openvino.Core, graph: Artifact, settings: Mapping[str, str]
) -> openvino.CompiledModel:
    """Load the compiled graph from the file beside its ONNX file, or compile it and write that file.

    A missing or damaged file is compiled anew; one that cannot be written is no error. RuntimeError,
    OpenVINO's own, if the graph cannot be read or compiled. OpenVINO's CACHE_DIR is not used: in 2026.4 it
    returns a graph compiled for fp32 to those who ask for bfloat16 too, and that ends the process with an
    illegal instruction. Here everything that compiling depends on is in the file's name.
    """
    place = _place(core, graph, settings)
    blob = _read(place)
    if blob is not None:
        with suppress(RuntimeError):  # OpenVINO refuses it: compiling says why, if it is not the file's fault
            return core.import_model(io.BytesIO(blob), "CPU", dict(settings))
    with timed("compile"):
        compiled = core.compile_model(core.read_model(graph.path), "CPU", dict(settings))
    with suppress(OSError, RuntimeError):  # a folder that is read-only or full; a graph that has no such form
        _write(place, compiled.export_model().getvalue())
    return compiled


def _place(core: openvino.Core, graph: Artifact, settings: Mapping[str, str]) -> Path:
    import openvino

    depends_on = {
        "graph": graph.content,
        "openvino": openvino.__version__,
        "processor": [str(core.get_property("CPU", "FULL_DEVICE_NAME")), _instructions()],
        "settings": dict(settings),
    }
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    return graph.path.with_name(f"{graph.path.stem}-{key}.openvino")


def _instructions() -> str:
    """Read the processor's instruction sets: in virtual machines different processors share a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _read(place: Path) -> bytes | None:
    """Read a file of _write; None if it is missing or damaged."""
    try:
        with timed("read"):
            content = place.read_bytes()
    except OSError:
        return None
    digest, blob = content[:_DIGEST], content[_DIGEST:]
    with timed("hash"):
        return blob if hashlib.sha256(blob).digest() == digest else None


def _write(place: Path, blob: bytes) -> None:
    """Write the blob behind its digest, whole or not at all: OpenVINO may crash on a file cut short."""
    with atomic_write(place) as draft:
        draft.write_bytes(hashlib.sha256(blob).digest() + blob)


@functools.cache
def _core() -> openvino.Core:
    """Make the process's one Core, which is never freed.

    A Core lends its thread a stack for signal handlers. Of two that are freed in the order they were made,
    the second puts the first one's stack back, which is unmapped by then, and the next signal ends the
    process with a segmentation fault (2026.4, on a processor with AMX).
    """
    return _openvino().Core()


def _openvino() -> ModuleType:
    """Import the package without its converter, which takes two thirds of the import's time.

    Imported, the converter also writes to HOME and sends Intel word of it, or tries to (2026.4).
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # as if it were not installed
    import openvino

    return openvino


def _dtypes(ports: list, tensors: Sequence[TensorSpec]) -> dict[str, str]:
    """Read dtypes by the spec's names where a port has one; compiling adds names of removed tensors."""
    expected = {tensor.name for tensor in tensors}
    return {
        min(port.names & expected, default=port.any_name): np.dtype(port.element_type.to_dtype()).name
        for port in ports
    }


def _reason(error: RuntimeError) -> str:
    """Pick the last line of OpenVINO's message, which says what was wrong."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
