"""Run one network: its specification, and backends that all answer to the same call."""

import os

# Else ONNX Runtime (from 1.31 on) sends word of what it runs, and leaves files in HOME and TMPDIR. It reads
# this once, when it is imported, which nothing of ours does before this room.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
