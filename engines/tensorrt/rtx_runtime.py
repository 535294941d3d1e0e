"""What TensorRT-RTX has beyond classic TensorRT at run time: kernels compiled here, graphs of its own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from engines.errors import EngineError
from engines.files import atomic_write, read_cache
from engines.tensorrt.api import TensorRT

RUNTIME_CACHE = ".runtime-cache"


class RtxContext:
    """An execution context whose compiled kernels are kept beside the engine file.

    Kernels for a shape are compiled before its first call returns (EAGER), so that no timing drifts; the CUDA
    graph is left to TensorRT-RTX, which must not be captured a second time.
    """

    def __init__(self, api: TensorRT, engine: object, engine_file: Path) -> None:
        trt = api.trt
        self._path = engine_file.with_name(engine_file.name + RUNTIME_CACHE)
        self._api, self._kept = api, read_cache(self._path)
        runtime_config = api.checked(engine.create_runtime_config(), "no runtime configuration")
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        runtime_config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        runtime_config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self._cache = api.checked(runtime_config.create_runtime_cache(), "no runtime cache")
        if self._kept:
            self._cache.deserialize(self._kept)  # False: of another driver or GPU; it begins empty then
        api.checked(runtime_config.set_runtime_cache(self._cache), "the runtime cache was refused")
        self.context = api.checked(
            engine.create_execution_context(runtime_config), f"no execution context for {engine_file.name}"
        )

    def keep_kernels(self) -> None:
        """Write the kernels compiled since the start, unless the folder is read-only."""
        data = bytes(self._api.checked(self._cache.serialize(), "the runtime cache gives no bytes"))
        if data != self._kept:
            with suppress(OSError), atomic_write(self._path) as draft:
                draft.write_bytes(data)
            self._kept = data


def verdict(api: TensorRT, runtime: object, header: bytes) -> tuple[str, list[str]]:
    """Judge an engine's first bytes: VALID, SUBOPTIMAL or INVALID and why; "unknown" without a driver."""
    validity, mask = runtime.get_engine_validity(header)
    known = api.trt.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, reason in known.items() if mask & int(reason)]
    if validity == api.trt.EngineValidity.INVALID and not reasons:
        api.take_messages()  # that there is no GPU, as an error
        return "unknown", []
    return validity.name, reasons


def check_header(api: TensorRT, runtime: object, header: bytes, name: str) -> None:
    """Raise EngineError, with TensorRT-RTX's reasons, if that engine cannot run on this machine."""
    validity, reasons = verdict(api, runtime, header)
    if validity == "INVALID":
        why = ", ".join(reasons).lower().replace("_", " ")
        raise EngineError(f"{name} cannot run on this machine: {why}; build it again with build_trt.py")
