"""OpenVINO's compiled graphs, kept beside their ONNX files so that the next start need not compile them.

Its own CACHE_DIR is not used: in 2026.4 a graph compiled for fp32 is found there for bfloat16 too, and ends
the process with an illegal instruction. Here everything that compiling depends on is in the file's name.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artifact import Artifact
from engines.files import atomic_write

if TYPE_CHECKING:
    import openvino

_DIGEST = hashlib.sha256().digest_size


def load_or_compile(
    core: openvino.Core, graph: Artifact, settings: Mapping[str, str]
) -> openvino.CompiledModel:
    """The compiled graph from its file; where there is none or a damaged one, compiled anew and kept.

    RuntimeError, OpenVINO's, if the graph cannot be read or compiled. What cannot be kept is not an error.
    """
    place = _place(core, graph, settings)
    blob = _read(place)
    if blob is not None:
        with suppress(RuntimeError):  # OpenVINO refuses it: compiling says why, if it is not the file's fault
            return core.import_model(io.BytesIO(blob), "CPU", dict(settings))
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
    """The processor's instruction sets; in virtual machines different processors have one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _read(place: Path) -> bytes | None:
    """What _write was given; None if it is not there, or not as it was written."""
    try:
        content = place.read_bytes()
    except OSError:
        return None
    digest, blob = content[:_DIGEST], content[_DIGEST:]
    return blob if hashlib.sha256(blob).digest() == digest else None


def _write(place: Path, blob: bytes) -> None:
    """Its digest and itself, whole or not at all; OpenVINO may crash on a file that is cut short."""
    with atomic_write(place) as draft:
        draft.write_bytes(hashlib.sha256(blob).digest() + blob)
