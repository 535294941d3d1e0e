"""The GPU as it is found: its name, driver, clocks and temperature. They are read, never set."""

from __future__ import annotations

import re
import shutil
import subprocess

FIELDS = (
    "name", "driver_version", "memory.total", "pstate", "clocks.sm", "clocks.max.sm", "clocks.mem",
    "temperature.gpu", "power.draw", "power.limit", "utilization.gpu",
)  # fmt: skip


def gpu_state() -> dict[str, str] | None:
    """What nvidia-smi says of the first GPU now, by its own names and in its units; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return dict(zip(FIELDS, values, strict=True)) if len(values) == len(FIELDS) else None


def file_name(gpu: str) -> str:
    """A GPU's name as that of a file: nvidia-h200 for NVIDIA H200."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
