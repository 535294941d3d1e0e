"""The settings of a Wan generator's vivace.toml; each conditioner has the published values as defaults."""

from __future__ import annotations

from dataclasses import dataclass

from engines.errors import unknown
from generators.samplers import FlowMatchEuler, Scheduler, UniPcMultistep
from generators.wan.config import PATCH, VAE_STRIDE_HW, VAE_STRIDE_T
from generators.windows import OverlapWindows

SIDE = VAE_STRIDE_HW * PATCH
SAMPLERS = ("flow", "flow-diffusers", "unipc", "unipc-diffusers")


@dataclass(frozen=True)
class Settings:
    """The settings of all conditioners. width, height: of the output. frames: of the video in a window.

    sampler: Euler steps on an even grid (flow), or UniPC's on Wan's own (unipc); on those of diffusers'
    schedulers flow-diffusers and unipc-diffusers. half: latents, and times where upstream does so, are
    rounded to bfloat16 between Euler steps. gpu: whose noise is drawn, by its number of multiprocessors; 0: a
    processor's. ValueError: sizes that the networks do not take.
    """

    width: int = 480
    height: int = 832
    frames: int = 81
    steps: int = 50
    shift: float = 5.0
    guidance: float = 1.0
    sampler: str = "flow"
    half: bool = False
    gpu: int = 0

    half_times = False  # upstream rounds the times that its network sees
    tile = (0, 0)  # height and width in latents of what is decoded at a time; 0: the whole

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if value < SIDE or value % SIDE:
                near = max(1, round(value / SIDE)) * SIDE
                raise ValueError(f"{name}: must be a multiple of {SIDE}, is {value}; the nearest is {near}")
        if self.frames < 1 + VAE_STRIDE_T or self.frames % VAE_STRIDE_T != 1:
            near = max(1, round((self.frames - 1) / VAE_STRIDE_T)) * VAE_STRIDE_T + 1
            wanted = f"1 more than a multiple of {VAE_STRIDE_T}"
            raise ValueError(f"frames: must be {wanted}, is {self.frames}; the nearest is {near}")
        if self.gpu < 0:
            raise ValueError(f"gpu: must be 0 or more, is {self.gpu}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler: {unknown('sampler', self.sampler, SAMPLERS)}")
        self.scheduler()

    @property
    def length(self) -> int:
        """The number of latent frames in a window."""
        return 1 + (self.frames - 1) // VAE_STRIDE_T

    def scheduler(self) -> Scheduler:
        """The sampling grid."""
        if self.sampler == "unipc":
            return UniPcMultistep(self.steps, self.shift, 0.999, 0.0)
        if self.sampler == "unipc-diffusers":
            return UniPcMultistep(self.steps, self.shift)
        least = 1e-3 if self.sampler == "flow-diffusers" else 0.0
        return FlowMatchEuler(self.steps, self.shift, least, self.half, self.half and self.half_times)


@dataclass(frozen=True)
class BlendSettings(Settings):
    """The settings of blended windows. overlap: latent frames that neighbours share."""

    overlap: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        OverlapWindows(self.length, self.overlap, VAE_STRIDE_T)
