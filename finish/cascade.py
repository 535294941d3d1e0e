"""The layers of MTCNN's three networks, with the names that their weights have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn


class Windows(nn.Module):
    """Convolutions, each with a PReLU and perhaps a pooling, then one hidden layer and two outputs.

    stages: channels before and after, kernel, pooling or 0. flat: what the hidden layer takes and gives;
    without one the outputs are convolutions, and there is an answer for each place of a picture of any size.
    """

    def __init__(
        self, stages: Sequence[tuple[int, int, int, int]], flat: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.pools = [pool for *_, pool in stages]
        for n, (before, after, kernel, _) in enumerate(stages, start=1):
            self.add_module(f"conv{n}", nn.Conv2d(before, after, kernel))
            self.add_module(f"prelu{n}", nn.PReLU(after))
        self.count, self.flat = len(stages), flat
        if flat:
            self.add_module(f"dense{self.count + 1}", nn.Linear(*flat))
            self.add_module(f"prelu{self.count + 1}", nn.PReLU(flat[1]))
            heads = [(f"dense{self.count + 2}_{n}", nn.Linear(flat[1], wide)) for n, wide in ((1, 2), (2, 4))]
        else:
            after = stages[-1][1]
            heads = [(f"conv{self.count + 1}_{n}", nn.Conv2d(after, wide, 1)) for n, wide in ((1, 2), (2, 4))]
        self.heads = [name for name, _ in heads]
        for name, layer in heads:
            self.add_module(name, layer)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, H, W, 3) uint8 to how sure (n, ...) and four moves in parts of a window's side (n, 4, ...)."""
        x = (pixels.float().permute(0, 3, 1, 2) - 127.5) / 128
        for n, pool in enumerate(self.pools, start=1):
            x = self.get_submodule(f"prelu{n}")(self.get_submodule(f"conv{n}")(x))
            x = nn.functional.max_pool2d(x, pool, 2, ceil_mode=True) if pool else x
        if self.flat:
            x = x.permute(0, 3, 2, 1).flatten(1)  # columns first, as in MATLAB, where these were trained
            x = self.get_submodule(f"prelu{self.count + 1}")(self.get_submodule(f"dense{self.count + 1}")(x))
        face, moves = (self.get_submodule(name)(x) for name in self.heads)
        return torch.softmax(face, 1)[:, 1], moves


CASCADE = {
    "propose": partial(Windows, [(3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)]),
    "refine": partial(Windows, [(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)], (576, 128)),
    "settle": partial(Windows, [(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)], (1152, 256)),
}
