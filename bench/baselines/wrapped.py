"""A generator around another one, which knows window and branch of every prediction and can keep things."""

from __future__ import annotations

import numpy as np

from engines.spec import Engine
from generators.contract import Constants, Generator


class Wrapped:
    """Answers as the inner generator does; predict() is where a rival may do otherwise.

    The sampling loop asks window after window at each step, the conditional branch of each first. What is
    kept is forgotten when the next request's noise is asked for.
    """

    def __init__(self, inner: Generator) -> None:
        self._inner = inner
        self._begin()

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):  # copying asks for some before there is an inner generator
            raise AttributeError(name)
        return getattr(self._inner, name)

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """The inner generator's; a new request begins."""
        self._begin()
        return self._inner.noise(frames, seed)

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """A prediction, by the inner generator's engine or as predict() has it."""
        if step != self._step:
            self._step, self._window = step, -1
        self._window += conditional
        self.key = (self._window, conditional)
        return self.predict(engine, latents, step, constants, conditional)

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """The prediction for the window and branch that key says."""
        return self._inner.denoise(engine, latents, step, constants, conditional)

    def forget(self) -> None:
        """Called when a request begins, after kept was emptied."""

    def _begin(self) -> None:
        self.kept: dict[tuple[int, bool], np.ndarray] = {}
        self.key, self._step, self._window = (0, True), -1, -1
        self.forget()


class Skipping(Wrapped):
    """Evaluates at some steps only; in between each window and branch has its last prediction again.

    steps: at which it is evaluated, 0 among them.
    """

    def __init__(self, inner: Generator, steps: frozenset[int]) -> None:
        super().__init__(inner)
        self.steps = steps

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Evaluated, or what is kept."""
        if step in self.steps or self.key not in self.kept:
            self.kept[self.key] = super().predict(engine, latents, step, constants, conditional)
        return self.kept[self.key]
