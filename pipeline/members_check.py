"""Check what a generator says of itself before any of it runs: files, size, guidance, windows, components."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np

from engines.errors import unknown
from engines.spec import ComponentSpec
from generators.contract import Generator, GeneratorError, branches_of
from pipeline.component_check import Finding
from pipeline.steps_check import kind_of


def check_settings(generator: Generator) -> Iterator[Finding]:
    """Check the generator's size, fingerprint files, guidance, its scheduler's times, and its windows."""
    sides = generator.size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(_is_a_side, sides)):
        yield Finding("size", f"it is {sides!r}", "give (width, height) of the output in whole pixels")
    elif any(side % 2 for side in sides):
        wrong = "{} x {} is odd: such videos can only be written with --lossless".format(*generator.size)
        yield Finding("size", wrong, "make both even: crop or pad what the decoder gives")
    files = generator.fingerprint_files
    if not isinstance(files, Sequence) or not all(isinstance(each, Path) for each in files):
        wrong = f"it is {files!r}, no sequence of paths"
        yield Finding("fingerprint_files", wrong, "write (Path(...), ...), with a comma after one")
        return
    lost = [str(path) for path in files if not path.is_file()]
    if lost or not files:
        wrong = f"{', '.join(lost)} cannot be read" if lost else "there are none"
        mend = "name the weights and the code of the networks, so that stale engines are noticed"
        yield Finding("fingerprint_files", wrong, mend)
    yield from _component_files(generator)
    try:
        branches_of(generator.guidance)
    except GeneratorError as error:
        wrong = str(error).removeprefix("guidance: ")
        yield Finding("guidance", wrong, "see guidance in docs/wrapping.md")
    times, steps = np.asarray(generator.scheduler.times), generator.scheduler.steps
    if times.shape != (steps + 1,) or times.dtype != np.float32:
        yield Finding(
            "scheduler", f"times are {kind_of(times)}", f"give {steps + 1} float32: steps and the end"
        )
    for frames in (1, generator.windows.frames, 2 * generator.windows.frames + 1):
        yield from _covered(generator, frames)


def _is_a_side(side: object) -> bool:
    return isinstance(side, Integral) and side > 0


def _component_files(generator: Generator) -> Iterator[Finding]:
    """Check that component_files, which may be left out, names components, and files of fingerprint_files."""
    known = {path.resolve() for path in generator.fingerprint_files}
    for component, sources in getattr(generator, "component_files", {}).items():
        files = {Path(inspect.getfile(each) if callable(each) else each).resolve() for each in sources}
        if component not in generator.components:
            wrong = unknown("component", component, generator.components)
            yield Finding("component_files", wrong, "use the names in components")
        elif not files or files - known:
            lost = ", ".join(map(str, sorted(files - known)))
            wrong = f"of {component}, {lost} is not in fingerprint_files" if lost else f"{component} has none"
            mend = "name all that its network is made from, and all of it in fingerprint_files too"
            yield Finding("component_files", wrong, mend)


def _covered(generator: Generator, frames: int) -> Iterator[Finding]:
    """Check that the windows of a clip cover all its latent frames, and that none is too long."""
    windows, steps = generator.windows, range(generator.scheduler.steps)
    sampled = len(windows.condition_indices(frames))
    for step, rule in enumerate(map(windows.at, steps) if hasattr(windows, "at") else [windows]):
        all_indices = rule.window_indices(frames)
        lost = set(range(sampled)) - {int(index) for indices in all_indices for index in indices}
        if lost or max(map(len, all_indices)) > windows.length:
            wrong = f"of a clip of {frames} frames, {len(lost)} of {sampled} latent frames are in no window"
            mend = "let window_indices() cover all latent frames, at most length at a time"
            yield Finding("windows", f"{wrong} at step {step}" if step else wrong, mend)
            return


def check_components(generator: Generator) -> Iterator[Finding]:
    """Check that each ComponentSpec is listed under its own name, and that there is one named denoise."""
    if not isinstance(generator.components, Mapping):
        wrong = f"it is of type {type(generator.components).__name__}, no dict"
        yield Finding("components", wrong, "give each ComponentSpec under its name: {spec.name: spec}")
        return
    for name, spec in generator.components.items():
        if not isinstance(spec, ComponentSpec) or spec.name != name:
            wrong = f"components[{name!r}] is {getattr(spec, 'name', type(spec).__name__)!r}"
            yield Finding("components", wrong, "let each ComponentSpec have the name it is found by")
    if "denoise" not in generator.components:
        wrong = f"there is no 'denoise' among {sorted(generator.components)}"
        yield Finding("components", wrong, "call the network that is run at every step denoise")
