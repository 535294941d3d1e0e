"""FasterCache of diffusers: the unconditional branch is mostly foretold, and then attention is kept too.

Lyu et al., 2024; its authors' code has no licence and is not used here. diffusers' hooks expect both branches
in one batch, given by keyword, the unconditional one first: so both are evaluated when the conditional one is
asked for. They keep one state a layer, as if there were one window; see hooked.Swapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.baselines.errors import RivalError
from bench.baselines.hooked import Swapped, from_diffusers
from bench.baselines.rival import Knobs, Rival
from engines.spec import Engine
from generators.contract import Constants, Generator

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel


class _Asked(Exception):
    """Raised instead of an evaluation; carries what was asked."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.arrays = arrays


class Paired(Swapped):
    """Both branches of a window in one evaluation."""

    def predict(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """The conditional one is evaluated with the other, which is then only handed out."""
        if not conditional:
            return self._inner.denoise(lambda **_: self._other, latents, step, constants, False)
        other = self._asked(latents, step, constants)

        def both(**arrays: np.ndarray) -> dict[str, np.ndarray]:
            found = engine(**{name: np.concatenate([other[name], arrays[name]]) for name in arrays})
            self._other = {name: array[:1] for name, array in found.items()}
            return {name: array[1:] for name, array in found.items()}

        return super().predict(both, latents, step, constants, True)

    def _asked(self, latents: np.ndarray, step: int, constants: Constants) -> dict[str, np.ndarray]:
        """What the inner generator asks its engine for the unconditional branch."""

        def note(**arrays: np.ndarray) -> dict[str, np.ndarray]:
            raise _Asked(arrays)

        try:
            self._inner.denoise(note, latents, step, constants, False)
        except _Asked as asked:
            return asked.arrays
        raise RivalError("fastercache needs a generator whose branches are each one call of the engine")


def knobs(generator: Generator) -> Knobs:
    """until: the greatest time, of 1000, at which it acts; every: evaluations of both branches, 1 is all."""
    return {"until": (641, 800, 400, 1001), "every": tuple(range(1, min(generator.scheduler.steps, 10) + 1))}


def wrap(generator: Generator, until: float, every: int) -> Generator:
    """The generator with diffusers' hooks. Attention is computed every second time, as in the paper."""
    if generator.guidance == 1.0:
        raise RivalError("fastercache foretells the unconditional branch, which guidance 1 does not have")

    def attach(transformer: WanTransformer3DModel) -> None:
        transformer.enable_cache(config)
        hooked = transformer.forward

        def by_keyword(
            hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, **others
        ):
            tensors = {"hidden_states": hidden_states, "timestep": timestep}
            return hooked(**tensors, encoder_hidden_states=encoder_hidden_states, **others)

        transformer.forward = by_keyword  # as the hooks themselves do

    wrapped = Paired(generator, attach)
    config = from_diffusers("FasterCacheConfig")(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, until),
        unconditional_batch_skip_range=int(every),
        unconditional_batch_timestep_skip_range=(-1, until),
        attention_weight_callback=lambda module: 0.5,
        tensor_format="BCFHW",
        current_timestep_callback=lambda: wrapped.time,
    )
    return wrapped


RIVAL = Rival(
    "fastercache", "diffusers' FasterCacheConfig, after arXiv 2410.19355; Apache-2.0", knobs, wrap,
    inside=True,
)  # fmt: skip
