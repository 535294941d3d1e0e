"""A generator whose denoiser gets a package's cache hooks when the torch engine builds it.

Windows and branches of one step go through the same network, which the packages' own pipelines do not have:
what is kept goes under the name of window and branch, and is dropped when a request begins.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from bench.baselines.errors import RivalError
from bench.baselines.wrapped import Wrapped
from engines.spec import Engine
from generators.contract import Constants, Generator

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

Attach = Callable[["WanTransformer3DModel"], object]
INSTALL = "run: pip install -r bench/baselines/requirements.txt"


class Hooked(Wrapped):
    """attach: puts hooks on a transformer; those of diffusers find their state by its cache_context."""

    def __init__(self, inner: Generator, attach: Attach) -> None:
        self.attach, self.transformer = attach, None
        super().__init__(inner)

    @property
    def time(self) -> float:
        """Of the step that is being predicted, from 1000 down to 0, as diffusers counts it."""
        return float(self.scheduler.times[max(self._step, 0)]) * 1000

    def build(self, component: str) -> torch.nn.Module:
        """The inner generator's; the denoiser's transformer with the hooks."""
        module = self._inner.build(component)
        if component == "denoise":
            self.transformer = find_transformer(module)
            self.attach(self.transformer)
        return module

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """The prediction with hooks that know window, branch and step."""
        if self.transformer is None:
            raise RivalError("a rival inside of the network needs the torch engine, started with it")
        with self.within(step):
            return super().predict(engine, latents, step, constants, conditional)

    def within(self, step: int) -> AbstractContextManager:
        """What a prediction is made in, so that hooks find their own state."""
        window, conditional = self.key
        return self.transformer.cache_context(
            f"window {window} {'conditional' if conditional else 'unconditional'}",
            step_index=step,
            num_inference_steps=self.scheduler.steps,
            timestep=self.time,
            sigma=float(self.scheduler.times[step]),
        )

    def forget(self) -> None:
        """All states of the hooks."""
        if self.transformer is not None:
            self.transformer._reset_stateful_cache()  # what diffusers' pipelines call after each request


class Swapped(Hooked):
    """For hooks whose state knows no cache_context: each window and branch has hook.state of its own."""

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """The prediction with the states of its window and branch."""
        if self.transformer is not None:
            hooks = list(stateful_hooks(self.transformer))
            if self.key not in self.states:
                self.states[self.key] = [type(hook.state)() for hook in hooks]
            for hook, state in zip(hooks, self.states[self.key], strict=True):
                hook.state = state
        return super().predict(engine, latents, step, constants, conditional)

    def forget(self) -> None:
        """All states of all windows and branches."""
        self.states: dict[tuple[int, bool], list] = {}
        super().forget()


def stateful_hooks(network: torch.nn.Module):
    """The hooks of diffusers on a network and its parts that keep something in hook.state."""
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for hook in registry.hooks.values() if registry else ():
            if hasattr(hook, "state"):
                yield hook


def find_transformer(module: torch.nn.Module) -> WanTransformer3DModel:
    """The WanTransformer3DModel in a denoiser; RivalError if there is none."""
    from diffusers import WanTransformer3DModel

    for part in module.modules():
        if isinstance(part, WanTransformer3DModel):
            return part
    raise RivalError("this denoiser has no WanTransformer3DModel, which the hooks of packages attach to")


def from_diffusers(name: str) -> object:
    """A class of diffusers' hooks; RivalError if the one installed is older than it."""
    import diffusers.hooks

    if not hasattr(diffusers.hooks, name):
        raise RivalError(f"diffusers {diffusers.__version__} has no {name}; {INSTALL}")
    return getattr(diffusers.hooks, name)
