"""ONNX Runtime: a component's ONNX graph on the processor, on CUDA, or through its TensorRT provider."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np

from engines.artifact import check_agreement, find_onnx
from engines.device_arrays import Array, Place, contiguous, on_host
from engines.errors import EngineError
from engines.load import allowed_threads
from engines.precision import require, supported
from engines.spec import ComponentSpec, Model, failure
from engines.start_times import timing_first_calls

# Kernels for bfloat16 are missing on the processor (ORT 1.31), those for 8-bit floats everywhere.
SUPPORTED = {
    "cpu": supported(compute=("float32", "float16"), layers=(None, "int8")),
    "cuda": supported(compute=("float32", "float16", "bfloat16"), layers=(None, "int8")),
}
STARTS_FROM = ".onnx"
OLDEST_ON_CUDA = (1, 25)  # before, Attention ran on the processor, and bf16 lacked Exp, Sqrt and Sigmoid
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
LINKED_TENSORRT = 10  # the provider of onnxruntime-gpu 1.25 to 1.31 is linked to libnvinfer.so.10
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


def why_not(device: str) -> str | None:
    """Return None if ONNX Runtime runs on that device here, else what is missing and what to do."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed; run: pip install onnxruntime (or, for CUDA, onnxruntime-gpu)"
    if device == "cpu":
        return None
    if not device.startswith("cuda"):
        return f"onnxruntime runs on cpu and cuda, not on {device}"
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime was built for processors; run: pip install -r requirements-gpu.txt"
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < OLDEST_ON_CUDA:
        return (
            f"onnxruntime {onnxruntime.__version__} has no CUDA kernels for attention and for bf16; run: "
            "pip install -r requirements-gpu.txt"
        )
    return None


def packages(device: str) -> dict[str, str]:
    """Name what has to be installed for a device, by what is imported."""
    return {"onnxruntime": "onnxruntime" if device == "cpu" else "onnxruntime-gpu"}


def start(model: Model, component: str, precision: str, device: str, folder: Path) -> OnnxRuntimeEngine:
    """Start the component's ONNX artifact. EngineError: it is missing, or cannot run."""
    path = _find(model, component, precision, device, folder)
    return OnnxRuntimeEngine(model.components[component], path, device)


def start_tensorrt(
    model: Model, component: str, precision: str, device: str, folder: Path
) -> OnnxRuntimeEngine:
    """Start it through the TensorRT provider, which builds at the first call and stores the engine.

    EngineError: the device is none of CUDA's, no ONNX artifact fits, or TensorRT is of another version.
    """
    if device == "cpu":
        raise EngineError("onnxruntime's TensorRT provider needs a GPU; give --device cuda")
    _check_linked_tensorrt()
    path = _find(model, component, precision, device, folder)
    return OnnxRuntimeEngine(model.components[component], path, device, tensorrt_cache=folder / "onnxruntime")


class OnnxRuntimeEngine:
    """An engine that runs one ONNX file; inputs and outputs go by the spec's names.

    device: cpu, cuda or cuda:<index>. tensorrt_cache: where the TensorRT provider, used if this is given,
    keeps its engines. EngineError if the file is no ONNX graph, if the device refuses it, or if its names or
    dtypes are not the spec's.
    """

    place: Place | None = None

    def __init__(
        self, spec: ComponentSpec, path: Path, device: str = "cpu", tensorrt_cache: Path | None = None
    ) -> None:
        import onnxruntime

        self.spec, self.path, self.device = spec, path, device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # no errors, which are raised as well
        options.intra_op_num_threads = allowed_threads()
        providers = _providers(device, spec, tensorrt_cache)
        if device != "cpu":
            _load_libraries(tensorrt_cache is not None)
        try:
            with redirect_stdout(sys.stderr):  # it prints that a provider fails, among manifest lines
                self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except _errors() as error:
            said = f"onnxruntime cannot load {path}: {_first_line(error)}{_way_out(error)}"
            raise failure(said, path) from error
        wanted = providers[0][0]
        if self._session.get_providers()[0] != wanted:  # it falls back without a word
            raise EngineError(f"onnxruntime could not start {wanted}: no driver, or no libraries?")
        check_agreement(spec, path, _dtypes(self._session.get_inputs()), _dtypes(self._session.get_outputs()))

    @timing_first_calls
    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Compute outputs by name. ValueError: an input does not fit, or it is closed. MemoryError."""
        if self._session is None:
            raise ValueError(f"{self.spec.name}: this engine is closed; build another")
        sizes = self.spec.check(arrays)
        names = [tensor.name for tensor in self.spec.outputs]
        try:
            if self.place and not _unknown(self.spec, sizes):
                return self._run_on(self.place, arrays, sizes)
            arrays = {name: contiguous(on_host(array)) for name, array in arrays.items()}
            run = self._session.run if self.device == "cpu" else self._run_bound
            outputs = run(names, arrays)
        except _errors() as error:
            raise failure(f"{self.spec.name}: {_first_line(error)}") from error
        made = dict(zip(names, outputs, strict=True))
        if self.place:
            made |= {name: self.place.asarray(each) for name, each in made.items() if each.dtype.kind == "f"}
        return made

    def close(self) -> None:
        """Drop the session."""
        self._session = None

    def _run_bound(self, names: list[str], arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run with outputs left on the device until all are there: one wait instead of one for each."""
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        for name in names:
            binding.bind_output(name, *self._memory)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    def _run_on(self, place: Place, arrays: dict[str, Array], sizes: dict[str, int]) -> dict[str, Array]:
        """Run on arrays of a place; what is not floating point comes to the host."""
        binding, memory = self._session.io_binding(), self._memory
        held = {name: place.asarray(array) for name, array in arrays.items()}
        for name, array in held.items():
            binding.bind_input(name, *memory, array.dtype, array.shape, place.address(array))
        made = {}
        for tensor in self.spec.outputs:
            shape = tuple(sizes.get(dim, dim) for dim in tensor.dims)
            made[tensor.name] = array = place.empty(shape, tensor.dtype)
            binding.bind_output(tensor.name, *memory, array.dtype, shape, place.address(array))
        place.wait()  # its stream is another
        self._session.run_with_iobinding(binding)
        return {name: array if array.dtype.kind == "f" else on_host(array) for name, array in made.items()}

    @property
    def _memory(self) -> tuple[str, int]:
        return "cuda", int(_index(self.device))


def _unknown(spec: ComponentSpec, sizes: dict[str, int]) -> set[str]:
    """Return the dims of outputs whose sizes no input tells."""
    return {dim for tensor in spec.outputs for dim in tensor.dims if isinstance(dim, str)} - set(sizes)


def _load_libraries(tensorrt: bool) -> None:
    """Load CUDA and cuDNN from their wheels, where the loader looks only if torch was imported first.

    TensorRT's own library is loaded by its package alone.
    """
    import onnxruntime

    with redirect_stdout(sys.stderr):  # it prints what it does not find, among manifest lines
        onnxruntime.preload_dlls()
        if tensorrt:
            with suppress(ImportError):
                importlib.import_module("tensorrt")


def _check_linked_tensorrt() -> None:
    """Raise EngineError if TensorRT's package is of another major version than the provider is linked to.

    Without a package it may be the system's; what is missing then, the start of a session says.
    """
    for package in TENSORRT_PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(package)
            if int(version.partition(".")[0]) == LINKED_TENSORRT:
                return
            raise EngineError(
                f"onnxruntime's TensorRT provider needs TensorRT {LINKED_TENSORRT}, and {package} {version} "
                f'is installed; run: pip install "tensorrt<{LINKED_TENSORRT + 1}"'
            )


def _way_out(error: Exception) -> str:
    """Return what to do where a kernel is missing, as CUDA's for convolutions in bf16 (onnxruntime#25740)."""
    return "; choose another --precision, as fp16" if "NOT_IMPLEMENTED" in str(error) else ""


def _profile(spec: ComponentSpec) -> dict[str, str]:
    """Return the sizes that TensorRT builds for once; else it builds anew for each that it has not seen."""
    if not spec.ranges:
        return {}

    def shapes(size: str) -> str:
        sizes = {name: getattr(limits, size) for name, limits in spec.ranges.items()}
        named = ((each.name, [str(sizes.get(dim, dim)) for dim in each.dims]) for each in spec.inputs)
        return ",".join(f"{name}:{'x'.join(dims)}" for name, dims in named)

    return {f"trt_profile_{size}_shapes": shapes(size) for size in ("min", "opt", "max")}


def _providers(
    device: str, spec: ComponentSpec, tensorrt_cache: Path | None
) -> list[tuple[str, dict[str, str]]]:
    """List execution providers and their options, the wanted one first."""
    cpu = ("CPUExecutionProvider", {})
    if device == "cpu":
        return [cpu]
    # TF32 would make fp32 another precision than the base model's; trying all algorithms costs the start.
    fp32 = {"device_id": _index(device), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    if tensorrt_cache is None:
        return [(CUDA, fp32), cpu]
    # The graph's own dtypes are kept: fp16 and 8 bits are in the ONNX file, as for TensorRT itself.
    cache = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(tensorrt_cache), **_profile(spec)}
    return [(TENSORRT, {"device_id": _index(device), **cache}), (CUDA, fp32), cpu]


def _index(device: str) -> str:
    return device.partition(":")[2] or "0"


def _find(model: Model, component: str, precision: str, device: str, folder: Path) -> Path:
    kind = device.split(":")[0]
    require(precision, SUPPORTED[kind], f"onnxruntime on {kind}")
    return find_onnx(folder, model, component, precision).path


def _dtypes(nodes: list) -> dict[str, str]:
    """Translate ONNX Runtime's "tensor(float)" to NumPy's dtype names."""
    kinds = {node.name: node.type.removeprefix("tensor(").removesuffix(")") for node in nodes}
    return {name: {"float": "float32", "double": "float64"}.get(kind, kind) for name, kind in kinds.items()}


def _errors() -> tuple[type[Exception], ...]:
    """List the exceptions that ONNX Runtime raises: a dozen types without a base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = (kind for kind in vars(state).values() if isinstance(kind, type))
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
