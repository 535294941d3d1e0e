"""Engines whose calls in steps are noted, so that steps which come again are CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engines.deferred_arrays import DeferringPlace
from engines.device_arrays import Array, Place
from engines.spec import Cadence, Engine
from engines.step_graphs import EngineCall


class DeferredEngine:
    """An engine whose calls are noted if they are a step's; others are made at once."""

    def __init__(self, engine: Engine, place: DeferringPlace) -> None:
        self.place, self._call = place, EngineCall(engine)

    def __getattr__(self, name: str) -> object:
        """Return the engine's attribute."""
        return getattr(self._call.engine, name)

    def __call__(self, **arrays: Array) -> dict[str, Array]:
        """Compute outputs by name. The engine's errors may come where the step ends."""
        args = tuple(arrays[tensor.name] for tensor in self.spec.inputs)
        if self.spec.cadence == Cadence.STEP:
            made = self.place.note(self._call, args, {})
        else:
            self.place.graphs.clear()  # between steps others need the memory
            made = self.place.at_once(self._call, args, {})
        return {tensor.name: each for tensor, each in zip(self.spec.outputs, made, strict=True)}


def defer_steps(
    engines: Mapping[str, Engine], place: Place | None, say: Callable[[str], None]
) -> tuple[Mapping[str, Engine], Place | None]:
    """Return engines and their place in a form in which steps are graphs, or as they are, and say why."""
    steps = [engine for engine in engines.values() if engine.spec.cadence == Cadence.STEP]
    if place and all(getattr(engine, "capturable", False) for engine in steps):
        place = DeferringPlace(place, say)
        return {name: DeferredEngine(engine, place) for name, engine in engines.items()}, place
    why = "its engine cannot be recorded" if place else "arrays are not sampled on a device"
    say(
        f"step_graph: steps are done call by call, for {why}; it is for torch and TensorRT on cuda, with CuPy"
    )
    return engines, place
