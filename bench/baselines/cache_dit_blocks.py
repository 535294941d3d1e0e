"""DBCache of cache-dit: where the first blocks' residual hardly changed, that of the others is kept.

cache-dit has one context for a transformer, with the branches told apart by odd and even calls; windows would
share it. So each window and branch has a context of its own, put in place before its prediction.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from bench.baselines.errors import RivalError
from bench.baselines.hooked import INSTALL, Hooked
from bench.baselines.rival import Knobs, Rival
from generators.contract import Generator

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel

THRESHOLDS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.24, 0.3, 0.4, 0.6, 1.0)


class Cached(Hooked):
    """warmup: steps before anything is kept; blocks: the first ones, which are always computed."""

    def __init__(self, inner: Generator, warmup: int, blocks: int, threshold: float) -> None:
        self.settings = {
            "Fn_compute_blocks": blocks,
            "Bn_compute_blocks": 0,
            "max_warmup_steps": warmup,
            "residual_diff_threshold": threshold,
            "enable_separate_cfg": False,
        }
        super().__init__(inner, self.cached)

    def cached(self, transformer: WanTransformer3DModel) -> None:
        """Enable it on the transformer."""
        try:
            import cache_dit
        except ImportError as error:
            raise RivalError(f"cache-dit cannot be imported ({error}); {INSTALL}") from error
        cache_dit.enable_cache(transformer, cache_config=cache_dit.DBCacheConfig(**self.settings))

    def within(self, step: int) -> AbstractContextManager:
        """Puts the context of this window and branch in place; cache-dit has no other way to have many."""
        manager = self.transformer._context_manager
        (name,) = self.transformer._context_names
        if self.key not in self.contexts:
            from cache_dit import DBCacheConfig

            self.contexts[self.key] = manager.new_context(
                name=name, cache_config=DBCacheConfig(**self.settings)
            )
        manager._cached_context_manager[name] = self.contexts[self.key]
        return nullcontext()

    def forget(self) -> None:
        """All contexts."""
        self.contexts: dict = {}


def knobs(generator: Generator) -> Knobs:
    """warmup: 8 is its own default; threshold: of the residual's relative change."""
    return {"warmup": (8, 4, 2, 1), "threshold": THRESHOLDS}


def wrap(generator: Generator, warmup: int, threshold: float) -> Generator:
    """The generator with cache-dit's blocks, of which the first alone is always computed."""
    return Cached(generator, int(warmup), 1, threshold)


RIVAL = Rival("cache-dit", "cache-dit's DBCache; Apache-2.0", knobs, wrap, inside=True)
