"""Hold what was expected before anything ran on a GPU: counted floors, and predictions with their units."""

from __future__ import annotations

# NVIDIA's datasheet of the H200 (SXM): dense bf16, and memory.
OPERATIONS, BYTES = 989e12, 4.8e12
CROSSING = 25e9  # bytes a second between pinned memory and a GPU, as seldom reached
# By entry and row, how it comes about in docs/gpu-notes.md: milliseconds of a call of a network, seconds of a
# clip of the presenter, operations or bytes a second of the machine.
PREDICTED = {
    "machine": {"bf16": 790e12, "copy": 3.0e12, "to the device, pageable": 8e9, "to the device, pinned": 25e9,
                "attention of wan-81, flash": 500e12, "attention of wan-81, cudnn": 620e12},
    "presenter": {"eager:fp16": 5, "graph:fp16": 0.7},
    "presenter end to end": {"torch:fp16 baseline": 0.29, "torch:fp16 exact": 0.08, "torch:fp16 fast": 0.04,
                             "resident:fp16 baseline": 0.2, "resident:fp16 fast": 0.03,
                             "steps:fp16 baseline": 0.12, "steps:fp16 fast": 0.03},
    "wan-81": {"eager:bf16": 704, "cudnn:bf16": 618, "engine:bf16": 720},
    "mimicmotion-72": {"eager:fp16": 720, "channels_last:fp16": 590, "engine:fp16": 830},
    "wan-decode": {"eager:fp16": 95, "channels_last:fp16": 55, "engine:fp16": 1100},
    "mimicmotion-72 compiled": {"channels_last:fp16": 590, "compile+channels_last:fp16": 475},
    "wan-81 compiled": {"cudnn:bf16": 618, "compile+cudnn:bf16": 540},
    "wan-81 compiled plain": {"eager:bf16": 704, "compile:bf16": 626},
}  # fmt: skip
