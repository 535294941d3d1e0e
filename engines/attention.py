"""The ways in which torch's engines compute attention, by name: torch's own, or a package's kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import TYPE_CHECKING

from engines.errors import EngineError

if TYPE_CHECKING:
    import torch

CUDNN, FLASH, SAGE = "cudnn", "flash", "sage"
Opened = Callable[[], AbstractContextManager[object]]
# By name: modules that have the kernels, the first one that is installed, and how to install one.
PACKAGES = {
    FLASH: (
        ("flash_attn_interface", "flash_attn"),
        "FlashAttention-3 for Hopper: `hopper` of github.com/Dao-AILab/flash-attention, or else: "
        "pip install flash-attn",
    ),
    SAGE: (("sageattention",), "pip install sageattention"),
}
WIDEST = 256  # of heads that the packages' kernels take


def open_attention(name: str) -> Opened:
    """Return what makes torch compute attention in that way while its block runs.

    EngineError: the package that it needs is missing.
    """
    return _cudnn if name == CUDNN else partial(_mode(), _kernel(name))


def _cudnn() -> AbstractContextManager[object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = "CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"
    return sdpa_kernel([getattr(SDPBackend, name) for name in names], set_priority=True)


def _kernel(name: str) -> Callable[..., torch.Tensor]:
    """Return a package's attention of queries, keys and values (b, heads, n, width). EngineError."""
    modules, how = PACKAGES[name]
    for module in modules:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        if name == SAGE:
            return partial(found.sageattn, tensor_layout="HND")
        return partial(_flash, found.flash_attn_func)
    raise EngineError(f"attention: {name} needs a package that is not installed; {how}")


def _flash(
    kernel: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
) -> torch.Tensor:
    """Call FlashAttention, which has heads behind the tokens, and may give more than the output."""
    found = kernel(*(each.transpose(1, 2) for each in (query, key, value)), causal=is_causal)
    return (found[0] if isinstance(found, tuple) else found).transpose(1, 2)


@cache
def _mode() -> type:
    """Return the mode that puts a kernel in the place of scaled_dot_product_attention where it can be."""
    import torch
    from torch.overrides import TorchFunctionMode

    attend = torch.nn.functional.scaled_dot_product_attention

    class Kernel(TorchFunctionMode):
        """A kernel in the place of torch's, for half precisions without a mask."""

        def __init__(self, kernel: Callable[..., torch.Tensor]) -> None:
            super().__init__()
            self._kernel = kernel

        def __torch_function__(
            self, function: Callable, types: Sequence, args: tuple = (), kwargs: Mapping | None = None
        ) -> object:
            kwargs = kwargs or {}
            if function is not attend or not self._fits(*args, **kwargs):
                return function(*args, **kwargs)
            query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[
                :3
            ]
            dtype = _half(query)
            return self._kernel(
                *(each.to(dtype) for each in (query, key, value)), is_causal=kwargs.get("is_causal", False)
            )

        @staticmethod
        def _fits(*args: object, **kwargs: object) -> bool:
            query = args[0] if args else kwargs["query"]
            plain = len(args) <= 3 and kwargs.get("attn_mask") is None and not kwargs.get("dropout_p")
            plain = plain and kwargs.get("scale") is None and not kwargs.get("enable_gqa")
            return plain and query.ndim == 4 and query.shape[-1] <= WIDEST and _half(query) != torch.float32

    def _half(query: torch.Tensor) -> torch.dtype:
        """Return the dtype that autocast would cast the arguments to."""
        device = query.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype

    return Kernel
