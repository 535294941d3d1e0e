"""How many threads an engine on the processor may use."""

from __future__ import annotations

import os


def allowed_threads() -> int:
    """The least of OMP_NUM_THREADS and this process's cores; 0 if that is all the machine has.

    0 leaves it to the runtime, which then also binds its threads to cores. Torch sees to both by itself.
    ONNX Runtime counts cores that the process may not use, and neither it nor OpenVINO reads
    OMP_NUM_THREADS, which is how Ray tells an actor its share of a machine.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # "4,2" if parallel regions nest
    if asked.isdecimal() and int(asked):
        own = min(own, int(asked))
    return own if own < os.cpu_count() else 0
