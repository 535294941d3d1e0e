"""A package's cache hooks on a denoiser's transformer, and denoisers that give each window its own state.

The packages' own pipelines have one window and one clip at a time. Here windows and branches of one step go
through the same network, so what hooks keep is told apart by window and branch, and dropped with the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import EngineError, UsageError
from generators.contract import Constants, Generator
from pipeline.caches.technique import TechniqueError
from pipeline.window_denoiser import OpenDenoiser, SerialDenoiser, WindowBranch

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

Attach = Callable[["NetworkHooks"], object]
INSTALL = "run: pip install -r pipeline/caches/requirements.txt"


class NetworkHooks:
    """Hooks that are attached to a generator's transformer when the torch engine builds its denoiser.

    generator: a copy, whose build is replaced. attach: is given this object when transformer is there. step:
    that is being predicted, for hooks that ask. forward: the technique that does nothing unless the
    transformer's own forward is called, None if its hooks are on blocks. TechniqueError: the generator's
    denoiser is known not to call it.
    """

    def __init__(self, generator: Generator, attach: Attach, forward: str | None = None) -> None:
        self._times, self._build, self._attach = generator.scheduler.times, generator.build, attach
        self.transformer: WanTransformer3DModel | None = None
        self.step, self._name, self._forward, self._called = 0, generator.name, forward, False
        if getattr(generator, "runs_blocks", False):
            self.check_called()
        generator.build = self.build

    @property
    def time(self) -> float:
        """The time of the step, from 1000 down to 0, as diffusers counts it."""
        return float(self._times[self.step]) * 1000

    def build(self, component: str) -> torch.nn.Module:
        """Build a component as the generator does; the denoiser with the hooks."""
        module = self._build(component)
        if component == "denoise":
            self.transformer = find_transformer(module)
            self._attach(self)
            self.transformer.register_forward_pre_hook(self._note)
        return module

    def check_called(self) -> None:
        """Raise TechniqueError if the technique needs the transformer's forward, and nothing called it."""
        if self._forward and not self._called:
            raise TechniqueError(
                f"name: {self._forward} hooks into the forward of a WanTransformer3DModel, and the denoiser "
                f"of {self._name} runs the blocks without it, so it would change nothing; first-block-cache "
                "hooks into blocks, and uniform-skip runs with any"
            )

    def _note(self, transformer: torch.nn.Module, inputs: tuple) -> None:
        self._called = True


class HookedDenoiser(SerialDenoiser):
    """For hooks that find their state by diffusers' cache_context.

    clip: as SerialDenoiser takes it. EngineError: no engine has the hooks.
    """

    def __init__(self, hooks: NetworkHooks, *clip: object) -> None:
        super().__init__(*clip)
        if hooks.transformer is None:
            raise EngineError("a technique inside of the network needs the torch engine, started with it")
        self._hooks = hooks
        self.forget()

    def evaluate(
        self, branch: WindowBranch, window: np.ndarray, step: int, constants: Constants
    ) -> np.ndarray:
        """Predict one branch of a window, with hooks that know window, branch and step."""
        with self.within(branch, step):
            found = super().evaluate(branch, window, step, constants)
        self._hooks.check_called()
        return found

    def within(self, branch: WindowBranch, step: int) -> AbstractContextManager:
        """The context of a prediction, in which hooks find the state of its window and branch."""
        hooks = self._hooks
        hooks.step = step
        return hooks.transformer.cache_context(
            f"window {branch.window} branch {branch.conditional}",
            step_index=step,
            num_inference_steps=self._generator.scheduler.steps,
            timestep=hooks.time,
            sigma=hooks.time / 1000,
        )

    def forget(self) -> None:
        """Drop all states, those of the clip before."""
        self._hooks.transformer._reset_stateful_cache()  # what diffusers' pipelines call after each request


class SwappingDenoiser(HookedDenoiser):
    """For hooks that know no cache_context: each window and branch has hook.state of its own."""

    def within(self, branch: WindowBranch, step: int) -> AbstractContextManager:
        """The context of a prediction, with the states of its window and branch put in place."""
        if branch.key not in self._states:
            self._states[branch.key] = [type(hook.state)() for hook in self._stateful]
        for hook, state in zip(self._stateful, self._states[branch.key], strict=True):
            hook.state = state
        return super().within(branch, step)

    def forget(self) -> None:
        """Drop all states of all windows and branches."""
        self._stateful, self._states = list(stateful_hooks(self._hooks.transformer)), {}
        super().forget()


def hooked(
    generator: Generator,
    config: str,
    settings: Callable[[NetworkHooks], dict[str, object]],
    kind: type[HookedDenoiser] = HookedDenoiser,
    forward: str | None = None,
) -> OpenDenoiser:
    """Attach diffusers' hooks to the generator's transformer when it is built; kind evaluates with them.

    config: the class of diffusers.hooks that stands for them. settings: gives its arguments, asked for then.
    forward: as NetworkHooks takes it.
    """

    def attach(hooks: NetworkHooks) -> None:
        hooks.transformer.enable_cache(from_diffusers(config)(**settings(hooks)))

    return partial(kind, NetworkHooks(generator, attach, forward))


def stateful_hooks(network: torch.nn.Module) -> Iterator:
    """The hooks of diffusers on a network and its parts that keep something in hook.state."""
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for hook in registry.hooks.values() if registry else ():
            if hasattr(hook, "state"):
                yield hook


def find_transformer(module: torch.nn.Module) -> WanTransformer3DModel:
    """The WanTransformer3DModel in a denoiser; UsageError if there is none."""
    from diffusers import WanTransformer3DModel

    for part in module.modules():
        if isinstance(part, WanTransformer3DModel):
            return part
    raise UsageError("this denoiser has no WanTransformer3DModel, which the technique's hooks attach to")


def from_diffusers(name: str) -> type:
    """A class of diffusers' hooks; EngineError if the version installed is older than it."""
    import diffusers.hooks

    if not hasattr(diffusers.hooks, name):
        raise EngineError(f"diffusers {diffusers.__version__} has no {name}; {INSTALL}")
    return getattr(diffusers.hooks, name)
