"""What a Wan generator's vivace.toml may set; each conditioner has the published values as defaults."""

from __future__ import annotations

from dataclasses import dataclass

from engines.unknown import unknown
from generators.schedule import FlowGrid, Grid
from generators.unipc import UniPcGrid
from generators.wan.sizes import DOWN, GROUP, PATCH
from generators.windows import Windows

SIDE = DOWN * PATCH
SAMPLERS = ("flow", "flow-diffusers", "unipc")


@dataclass(frozen=True)
class Settings:
    """width, height: of the output. frames: of the video in a window.

    sampler: Euler steps on an even grid (flow) or on that of diffusers' scheduler (flow-diffusers), or unipc.
    ValueError: sizes that the networks do not take.
    """

    width: int = 480
    height: int = 832
    frames: int = 81
    steps: int = 50
    shift: float = 5.0
    guidance: float = 1.0
    sampler: str = "flow"

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if value < SIDE or value % SIDE:
                near = max(1, round(value / SIDE)) * SIDE
                raise ValueError(f"{name}: must be a multiple of {SIDE}, is {value}; the nearest is {near}")
        if self.frames < 1 + GROUP or self.frames % GROUP != 1:
            near = max(1, round((self.frames - 1) / GROUP)) * GROUP + 1
            wanted = f"1 more than a multiple of {GROUP}"
            raise ValueError(f"frames: must be {wanted}, is {self.frames}; the nearest is {near}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler: {unknown('sampler', self.sampler, SAMPLERS)}")
        self.grid()

    @property
    def length(self) -> int:
        """Latent frames of a window's frames."""
        return 1 + (self.frames - 1) // GROUP

    def grid(self) -> Grid:
        """The sampling grid."""
        if self.sampler == "unipc":
            return UniPcGrid(self.steps, self.shift)
        last = self.shift * 1e-3 / (1 + (self.shift - 1) * 1e-3) if self.sampler == "flow-diffusers" else 0.0
        return FlowGrid(self.steps, self.shift, last)


@dataclass(frozen=True)
class BlendSettings(Settings):
    """overlap: latent frames that neighbouring windows share."""

    overlap: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        Windows(self.length, self.overlap, GROUP)
