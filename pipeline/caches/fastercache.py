"""FasterCache of diffusers: the unconditional branch is mostly foretold, and then attention is kept too.

Lyu et al., 2024; its authors' code has no licence and is not used here. diffusers' hooks expect both branches
in one batch, given by keyword, the unconditional one first: so both are evaluated when the conditional one is
asked for. They keep one state a layer, as if there were one window; see network_hooks.SwappingDenoiser.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from generators.contract import Constants, Generator
from pipeline.branches_together import Arrays, asked, why_not_together
from pipeline.caches.network_hooks import NetworkHooks, SwappingDenoiser, from_diffusers
from pipeline.caches.technique import Technique, TechniqueError, up_to_steps
from pipeline.window_denoiser import OpenDenoiser, WindowBranch

if TYPE_CHECKING:
    import torch


class PairingDenoiser(SwappingDenoiser):
    """Evaluates both branches of a window at once, when the conditional one is asked for."""

    def evaluate(
        self, branch: WindowBranch, window: np.ndarray, step: int, constants: Constants
    ) -> np.ndarray:
        """Predict one branch of a window; the unconditional one was evaluated with the other."""
        if not branch.conditional:
            found = self._others.pop(branch.window)
            return self._generator.denoise(lambda **_: found, window, step, constants, False)
        other = asked(self._generator, window, step, constants, False)

        def both(**arrays: np.ndarray) -> Arrays:
            found = self._engine(**{name: np.concatenate([other[name], arrays[name]]) for name in arrays})
            self._others[branch.window] = {name: array[:1] for name, array in found.items()}
            return {name: array[1:] for name, array in found.items()}

        with self.within(branch, step):
            found = self._generator.denoise(both, window, step, constants, True)
        self._hooks.check_called()
        return found

    def forget(self) -> None:
        """Drop all states, and what was evaluated with conditional branches."""
        self._others: dict[int, Arrays] = {}
        super().forget()


def apply(generator: Generator, until: float, every: int) -> OpenDenoiser:
    """Attach diffusers' hooks. Attention is computed every second time, as in the paper.

    TechniqueError: there are not two branches, or they cannot be one batch.
    """
    if isinstance(generator.guidance, Mapping) or hasattr(generator, "denoise_branches"):
        raise TechniqueError(
            "name: fastercache needs denoise, and guidance of one unconditional branch; choose another one"
        )
    if generator.guidance == 1.0:
        raise TechniqueError(
            "name: fastercache foretells the unconditional branch, which guidance 1 does not have"
        )
    if why := why_not_together(generator):
        raise TechniqueError(
            f"name: fastercache evaluates both branches of {generator.name} in one batch, and {why}; choose "
            "guidance-interval, which spares the unconditional branch too"
        )

    def attach(hooks: NetworkHooks) -> None:
        transformer = hooks.transformer
        config = from_diffusers("FasterCacheConfig")(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, until),
            unconditional_batch_skip_range=every,
            unconditional_batch_timestep_skip_range=(-1, until),
            attention_weight_callback=lambda module: 0.5,
            tensor_format="BCFHW",
            current_timestep_callback=lambda: hooks.time,
        )
        transformer.enable_cache(config)
        hooked = transformer.forward

        def by_keyword(
            hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, **others
        ):
            tensors = {"hidden_states": hidden_states, "timestep": timestep}
            return hooked(**tensors, encoder_hidden_states=encoder_hidden_states, **others)

        transformer.forward = by_keyword  # as the hooks themselves do

    return partial(PairingDenoiser, NetworkHooks(generator, attach, "fastercache"))


# until: the greatest time, of 1000, at which it acts; every: evaluations of both branches, 1 is all.
TECHNIQUE = Technique(
    "fastercache",
    "diffusers' FasterCacheConfig, after arXiv 2410.19355; Apache-2.0",
    {"until": (641.0, 800.0, 400.0, 1001.0), "every": up_to_steps(10)},
    apply,
    inside=True,
)
