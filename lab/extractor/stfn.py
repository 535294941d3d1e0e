"""stfn: a spatio-temporal feature network of ours, for videos of a person who gestures.

Spatial convolutions at three scales; their features, and those of the change from frame to frame, go through
convolutions over time; pooled over soft parts of the clip, so that order counts; one vector for each clip.
Trained so that a clip stays near itself when it is encoded again, and leaves it with each visible defect.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEIGHT = 128, 192
GRID = (6, 4)  # places that features are kept apart for
PARTS = 4  # of a clip's time


@dataclass(frozen=True)
class StfnSize:
    """Channels of the three scales and of each after fusion; numbers of a frame's and of a clip's feature."""

    channels: tuple[int, int, int] = (48, 64, 96)
    fused: int = 24
    frame: int = 128
    clip: int = 192


class Stage(nn.Module):
    """Two 3x3 convolutions with a way around them; the first may halve the picture."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(before, after, 3, stride, 1)
        self.stay = nn.Conv2d(after, after, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h / stride, w / stride)."""
        x = F.silu(self.enter(x))
        return x + F.silu(self.stay(x))


class Spatial(nn.Module):
    """A feature of a picture: means and deviations at three scales on a coarse grid, fused and joined."""

    def __init__(self, size: StfnSize) -> None:
        super().__init__()
        a, b, c = size.channels
        self.stages = nn.ModuleList([Stage(48, a, 1), Stage(a, b, 2), Stage(b, c, 2)])
        self.fuse = nn.ModuleList([nn.Conv2d(2 * width, size.fused, 1) for width in size.channels])
        self.join = nn.Linear(3 * size.fused * GRID[0] * GRID[1], size.frame)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (N, 3, H, W) in -1..1 to (N, frame)."""
        x, found = F.pixel_unshuffle(pictures, 4), []
        for stage, fuse in zip(self.stages, self.fuse, strict=True):
            x = stage(x)
            # Beside means, what is left when the mean of a place is gone: texture, noise, edges.
            rows, columns = x.shape[-2] // GRID[0], x.shape[-1] // GRID[1]
            mean = F.avg_pool2d(x, (rows, columns))
            power = F.avg_pool2d(x * x, (rows, columns)) - mean * mean
            found.append(fuse(torch.cat([mean, torch.sqrt(power.clamp(min=0) + 1e-4)], 1)))
        return self.join(torch.cat(found, 1).flatten(1))


class Stfn(nn.Module):
    """Frames (F, H, W, 3) uint8, two at least, to the clip's vector (1, clip) and frames' (F, frame)."""

    def __init__(self, size: StfnSize = StfnSize()) -> None:
        super().__init__()
        self.size = size
        self.spatial = Spatial(size)
        self.moving = Spatial(size)
        self.over_time = nn.ModuleList([nn.Conv1d(n * size.frame, size.frame, 3, padding=1) for n in (2, 1)])
        self.out = nn.Linear(PARTS * 3 * size.frame, size.clip)
        self.head = nn.Linear(size.frame, size.frame)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of the clip and of its frames, both of unit length."""
        return self.pool(self.rows(frames))

    def rows(self, frames: Tensor) -> Tensor:
        """Return rows (F, 2 frame) for frames (F, H, W, 3) uint8: of each, and of its change from the one
        before.
        """
        pictures = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        before = torch.cat([pictures[:1], pictures[:-1]])
        return torch.cat([self.spatial(pictures), self.moving((pictures - before) * 4)], 1)

    def pool(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of a clip (1, clip) and of its frames (F, frame), from its rows."""
        x = rows.T[None]  # (1, 2 frame, F)
        x = F.silu(self.over_time[0](x))
        x = x + F.silu(self.over_time[1](x))
        each = torch.cat([x[0].T, rows], 1)  # (F, 3 frame)
        clip = self.out((self._parts(each) @ each).flatten()[None])
        return F.normalize(clip, dim=1), F.normalize(self.head(rows[:, : self.size.frame]), dim=1)

    def _parts(self, each: Tensor) -> Tensor:
        """Return how much each frame counts in each part of the clip (PARTS, F): overlapping triangles."""
        count = each.shape[0]
        place = torch.arange(count, device=each.device, dtype=each.dtype) / (count - 1) * (PARTS - 1)
        middle = torch.arange(PARTS, device=each.device, dtype=each.dtype)
        weight = (1 - (place[None] - middle[:, None]).abs()).clamp(min=0)
        return weight / weight.sum(1, keepdim=True).clamp(min=1e-3)
