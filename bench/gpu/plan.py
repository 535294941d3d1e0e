"""The list of all that is measured, the most telling first, with the seconds that each should take."""

from __future__ import annotations

from dataclasses import dataclass, replace

START = 25  # seconds until a new process has loaded torch and opened the GPU


@dataclass(frozen=True)
class Entry:
    """One measurement: what kind of it, of what, in which ways.

    kind: "network" (bench/gpu/measure.py), "recipes", "foreign" or "profile". subject: of a network.
    seconds: an estimate on a large GPU, never measured. rehearsed: whether a rehearsal has it, too; what
    differs only in size is left out there, and so are ways that take a processor minutes.
    """

    name: str
    kind: str
    ways: tuple[str, ...]
    seconds: int
    subject: str = ""
    rehearsed: bool = True


def _networks() -> list[Entry]:
    """Eager ways first: compiling takes a minute a way, and can fail in more ways."""
    kernels = ("flash:{}", "cudnn:{}", "efficient:{}")
    wan = ("plain:bf16", "eager:fp16", "eager:bf16", *(each.format("bf16") for each in kernels), "fp8:bf16")
    unet = ("plain:fp16", "eager:fp16", "eager:bf16", "channels_last:fp16",
            *(each.format("fp16") for each in kernels), "fp8:bf16")  # fmt: skip
    decoder = ("eager:fp32", "eager:fp16", "eager:bf16", "channels_last:fp16")
    wan_compiled = ("eager:bf16", "compile:bf16", "compile+cudnn:bf16", "compile+fp8:bf16")
    unet_compiled = ("eager:fp16", "compile:fp16", "compile+channels_last:fp16",
                     "compile+channels_last+fp8:bf16")  # fmt: skip
    decoder_compiled = ("eager:fp16", "compile:fp16", "compile+channels_last:fp16")
    return [
        Entry("mimicmotion-16", "network", (*unet, "engine:fp16"), 60, "mimicmotion-16"),
        Entry("wan-17", "network", (*wan, "engine:fp16"), 60, "wan-17"),
        Entry("mimicmotion-decode", "network", (*decoder, "engine:fp16"), 45, "mimicmotion-decode"),
        Entry("wan-decode", "network", (*decoder, "engine:fp16"), 60, "wan-decode"),
        Entry("wan-81", "network", wan, 120, "wan-81", rehearsed=False),
        Entry("mimicmotion-72", "network", unet, 120, "mimicmotion-72", rehearsed=False),
        Entry("presenter", "network",
              ("eager:fp32", "eager:fp16", "graph:fp16", "compile:fp16", "engine:fp16"), 60, "presenter"),
        Entry("mimicmotion-16 compiled", "network", unet_compiled, 300, "mimicmotion-16", rehearsed=False),
        Entry("wan-17 compiled", "network", wan_compiled, 200, "wan-17"),
        Entry("mimicmotion-decode compiled", "network", decoder_compiled, 150, "mimicmotion-decode",
              rehearsed=False),
        Entry("wan-decode compiled", "network", decoder_compiled, 180, "wan-decode", rehearsed=False),
        Entry("wan-81 compiled", "network", wan_compiled, 250, "wan-81", rehearsed=False),
        Entry("mimicmotion-72 compiled", "network", unet_compiled, 350, "mimicmotion-72", rehearsed=False),
        Entry("wan-17 exported", "network", ("eager:fp16", "onnxruntime:fp16"), 200, "wan-17"),
        Entry("mimicmotion-16 exported", "network", ("eager:fp16", "onnxruntime:fp16"), 250,
              "mimicmotion-16", rehearsed=False),
    ]  # fmt: skip


ENTRIES = (
    Entry("foreign engines", "foreign", ("80", "89", "80,86,89,120"), 60),
    Entry("presenter end to end", "recipes",
          ("torch:fp32", "torch:fp16", "torch:bf16", "torch-compile:fp16", "onnxruntime:fp32",
           "onnxruntime:fp16", "onnxruntime-tensorrt:fp16", "tensorrt:fp16"), 300),
    *_networks(),
)  # fmt: skip
# On a processor: compiling all components, or exporting them.
SLOW = ("torch-compile:fp16", "onnxruntime:fp32", "onnxruntime:fp16", "onnxruntime-tensorrt:fp16")
RECIPES = ("baseline", "exact", "fast")


def planned(rehearsal: bool) -> list[Entry]:
    """The entries of a run, or of a rehearsal."""
    if not rehearsal:
        return list(ENTRIES)
    return [
        replace(entry, ways=tuple(way for way in entry.ways if way not in SLOW))
        for entry in ENTRIES
        if entry.rehearsed
    ]
