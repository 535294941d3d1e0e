"""What a GPU should take for each network: counted work over published peaks, without a GPU."""

from __future__ import annotations

from bench.gpu.table import rows

# NVIDIA's datasheet of the H200 (SXM): dense bf16, and memory.
OPERATIONS, BYTES = 989e12, 4.8e12
CROSSING = 25e9  # bytes a second between pinned memory and a GPU at PCIe 4.0 x16, as seldom reached


def expected(tiny: bool) -> str:
    """A table of every network's work and floor."""
    from bench.gpu.measure import counted, crossing
    from bench.gpu.subjects import SUBJECTS, load_subject

    head = (
        "network|TFLOP|of them attention|ms at 989 TFLOP/s|least GB|ms at 4.8 TB/s|GB if eager|"
        "ms at 4.8 TB/s|floor, ms|MB across|ms at 25 GB/s"
    )
    lines = []
    for name in SUBJECTS:
        subject = load_subject(name, tiny)
        work, across = counted(subject, "bf16"), crossing(subject)
        cells = (
            f"{work.operations / 1e12:.4g}", f"{work.attention / 1e12:.4g}",
            f"{1e3 * work.operations / OPERATIONS:.4g}",
            f"{work.least_bytes / 1e9:.3g}", f"{1e3 * work.least_bytes / BYTES:.3g}",
            f"{work.eager_bytes / 1e9:.4g}", f"{1e3 * work.eager_bytes / BYTES:.4g}",
            f"{1e3 * work.floor(OPERATIONS, BYTES):.4g}",
            f"{across / 1e6:.4g}", f"{1e3 * across / CROSSING:.3g}",
        )  # fmt: skip
        lines.append("|".join([name, *cells]))
    return rows(head, lines)
