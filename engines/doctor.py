"""What this machine is, what is installed, and which backends run on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from engines.load import BACKENDS, backend_module

DEVICES = ("cpu", "cuda")
PACKAGES = (
    "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt",
    "tensorrt-rtx", "pycuda", "cuda-python", "nvidia-modelopt", "open-clip-torch", "imageio-ffmpeg",
)  # fmt: skip


def examine() -> dict:
    """Report the machine, its packages, and for each backend and device None or why it cannot run."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),  # that this process may use
        "cpus": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := version(name))},
        "backends": {
            backend: {device: backend_module(backend).why_not(device) for device in DEVICES}
            for backend in BACKENDS
        },
    }


def version(package: str) -> str | None:
    """Return an installed package's version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Read the processor's name from Linux."""
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
