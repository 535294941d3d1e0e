"""DBCache of cache-dit: where the first blocks' residual hardly changed, that of the others is kept.

cache-dit has one context for a transformer, with the branches told apart by odd and even calls; windows would
share it. So each window and branch has a context of its own, put in place before its prediction.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

from engines.errors import EngineError
from generators.contract import Generator
from pipeline.caches.network_hooks import INSTALL, HookedDenoiser, NetworkHooks
from pipeline.caches.technique import Technique
from pipeline.window_denoiser import Key, OpenDenoiser, WindowBranch

THRESHOLDS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.24, 0.3, 0.4, 0.6, 1.0)


class DbCacheHooks(NetworkHooks):
    """cache-dit's hooks, of which the first block alone is always computed.

    warmup: steps before anything is kept. They are in place of the blocks while the network's own forward
    runs. EngineError, when they are attached: cache-dit is not installed.
    """

    def __init__(self, generator: Generator, warmup: int, threshold: float) -> None:
        super().__init__(generator, DbCacheHooks.enable, "cache-dit")
        self._settings = {
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "max_warmup_steps": warmup,
            "residual_diff_threshold": threshold,
            "enable_separate_cfg": False,
        }

    def enable(self) -> None:
        """Attach them to the transformer."""
        try:
            import cache_dit
        except ImportError as error:
            raise EngineError(f"cache-dit cannot be imported ({error}); {INSTALL}") from error
        cache_dit.enable_cache(self.transformer, cache_config=self.config())

    def config(self) -> object:
        """New settings as cache-dit takes them."""
        from cache_dit import DBCacheConfig

        return DBCacheConfig(**self._settings)


class DbCacheDenoiser(HookedDenoiser):
    """Puts the context of a window and branch in place; cache-dit has no other way to have many."""

    def within(self, branch: WindowBranch, step: int) -> AbstractContextManager:
        """The context of a prediction."""
        manager, key = self._hooks.transformer._context_manager, branch.key
        (name,) = self._hooks.transformer._context_names
        if key not in self._contexts:
            self._contexts[key] = manager.new_context(name=name, cache_config=self._hooks.config())
        manager._cached_context_manager[name] = self._contexts[key]
        return nullcontext()

    def forget(self) -> None:
        """Drop all contexts."""
        self._contexts: dict[Key, object] = {}


def apply(generator: Generator, warmup: int, threshold: float) -> OpenDenoiser:
    """Attach cache-dit's hooks."""
    return partial(DbCacheDenoiser, DbCacheHooks(generator, warmup, threshold))


# warmup: 8 is cache-dit's own default; threshold: of the residual's relative change.
TECHNIQUE = Technique(
    "cache-dit",
    "cache-dit's DBCache; Apache-2.0",
    {"warmup": (8, 4, 2, 1), "threshold": THRESHOLDS},
    apply,
    inside=True,
)
