"""Check a generator on a clip that is no whole number of windows or chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from engines.spec import Engine
from generators.contract import Generator
from generators.windows import ContinuationWindows
from pipeline.columns import example_columns
from pipeline.component_check import Finding
from pipeline.sampler import own_latents
from pipeline.window_denoiser import uncovered

SEED = 1


def check_lengths(generator: Generator, engines: Mapping[str, Engine]) -> Iterator[Finding]:
    """Check that conditions cover a clip one frame longer than a window, and that all its frames are decoded.

    Where chunks fill such a clip, they do not fill a window, which is tried elsewhere. A longer clip would
    show no more, and cost more: networks may take minutes a window on a processor. Nothing is denoised.
    Windows that continue one another are conditioned and decoded one at a time, so there is nothing to check.
    """
    if isinstance(generator.windows, ContinuationWindows):
        return
    frames, (width, height) = generator.windows.frames + 1, generator.size
    clip = np.random.default_rng(SEED).integers(0, 256, (frames, height, width, 3), np.uint8)
    image, chunks = clip[:1], np.split(clip, range(generator.chunk, frames, generator.chunk))
    columns = example_columns(generator, image)
    constants = generator.condition(engines, iter(chunks), image, **columns)
    if wrong := uncovered(generator, constants, frames):
        yield Finding("condition", wrong, "encode all chunks, a last one not full too")
    sampled = len(generator.windows.condition_indices(frames))
    latents = own_latents(generator, generator.noise(sampled, SEED), frames)
    made = sum(len(pixels) for pixels in generator.decode(engines, latents))
    if made < frames:
        wrong = f"it gives {made} frames of a clip of {frames}"
        yield Finding("decode", wrong, "yield the pixels of all latents, of a last chunk not full too")
