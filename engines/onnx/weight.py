"""A weight of a network that is exported without weights: what it reads when the graph is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.errors import EngineError
from engines.files import release_pages

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Weight:
    """The content of an initializer to be: a tensor in another dtype, its rows and dims in another order."""

    tensor: torch.Tensor
    dtype: torch.dtype
    order: tuple[int, ...]
    rows: torch.Tensor | None = None

    @property
    def shape(self) -> list[int]:
        """The dims as the initializer has them."""
        return [self.tensor.shape[axis] for axis in self.order]

    def read(self) -> torch.Tensor:
        """Copy the numbers, then release the pages of the file they came from."""
        import torch

        tensor = self.tensor if self.rows is None else self.tensor[self.rows]
        copied = tensor.to(self.dtype, copy=True).permute(self.order).contiguous()
        release_pages(self.tensor)
        if self.dtype == torch.float16 and not bool(torch.isfinite(copied).all()):
            raise EngineError("a weight is too large for fp16, or not finite; export in bf16 or fp32")
        return copied
