"""The files of a MimicMotion folder: settings, checkpoint, Stable Video Diffusion's parts; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generators.clip.size import ClipSize
from generators.settings import FILE, read_config, read_settings
from generators.weight_files import expected_files

UNET, VAE, IMAGE_ENCODER = "unet", "vae", "image_encoder"
HALVES = {VAE: "diffusion_pytorch_model.fp16.safetensors", IMAGE_ENCODER: "model.fp16.safetensors"}
CROSS = "CrossAttn"  # what types of blocks with attention begin with


@dataclass(frozen=True)
class Settings:
    """The settings in FOLDER/vivace.toml; the defaults are upstream's for its 72-frame model.

    checkpoint: the file with unet.* and pose_net.*. tile, overlap: of windows, in latent frames;
    even_windows: as ReferenceWindows.even. Guidance goes evenly from the first frame's to the last one's.
    fps and motion_bucket: the network's inputs. gpu: whose noise is drawn, by its number of multiprocessors
    (A100: 108, H100 and H200: 132); 0: a processor's. half: times and latents are kept in half precision
    between steps, as upstream does. swap_red_blue: of skeletons whose limb from neck to right shoulder is not
    blue, as in the model's own. stride: only every one of so many frames is made, upstream every second; 0:
    all. shallow: there are components for the action H of step plans too.
    """

    checkpoint: str = "MimicMotion_1-1.pth"
    width: int = 576
    height: int = 1024
    steps: int = 25
    first_guidance: float = 2.0
    last_guidance: float = 2.0
    tile: int = 72
    overlap: int = 6
    even_windows: bool = False
    chunk: int = 8
    fps: int = 7
    motion_bucket: int = 127
    gpu: int = 0
    half: bool = True
    swap_red_blue: bool = False
    stride: int = 0
    shallow: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.chunk) < 1 or min(self.gpu, self.stride) < 0:
            raise ValueError("width, height and chunk must be 1 or more, stride and gpu 0 or more")


class Folder:
    """A folder in the layout of Stable Video Diffusion 1.1, MimicMotion's checkpoint beside its parts."""

    def __init__(self, path: Path) -> None:
        self.path, self.settings = path, read_settings(path, Settings)
        self.unet = self._config(UNET)

    @property
    def channels(self) -> int:
        """The channels of the U-Net's first level, and so of pose features."""
        return self.unet["block_out_channels"][0]

    @property
    def embedded(self) -> int:
        """The length of a row of Embed: two layers in each residual block."""
        levels, layers = self.unet["block_out_channels"], self.unet["layers_per_block"]
        down, up = sum(levels) * layers, sum(levels) * (layers + 1)
        return 2 * (down + 2 * levels[-1] + up)

    @property
    def image_context(self) -> int:
        """The length of a row of the image context: two layers in each attention block."""
        levels, layers = self.unet["block_out_channels"], self.unet["layers_per_block"]
        down = zip(self.unet["down_block_types"], levels, strict=True)
        up = zip(self.unet["up_block_types"], reversed(levels), strict=True)
        total = sum(size * layers for kind, size in down if kind.startswith(CROSS)) + levels[-1]
        return 2 * (total + sum(size * (layers + 1) for kind, size in up if kind.startswith(CROSS)))

    @property
    def clip(self) -> ClipSize:
        """The image encoder's size."""
        config = self._config(IMAGE_ENCODER)
        return ClipSize(**{name: config[name] for name in ClipSize.__dataclass_fields__})

    @property
    def vae(self) -> dict:
        """The autoencoder's config."""
        return self._config(VAE)

    @property
    def checkpoint(self) -> Path:
        """The file with unet.* and pose_net.*."""
        return self.path / self.settings.checkpoint

    def part(self, name: str) -> Path:
        """Locate the weights of a part: its file in half precision, as upstream takes, or its folder."""
        half = self.path / name / HALVES[name]
        return half if half.is_file() else half.parent

    @property
    def settings_files(self) -> tuple[Path, ...]:
        """The settings, where there are some, and the networks' configs."""
        configs = (self.path / part / "config.json" for part in (UNET, VAE, IMAGE_ENCODER))
        return (*[self.path / FILE] * (self.path / FILE).is_file(), *configs)

    @property
    def files(self) -> tuple[Path, ...]:
        """List all files that decide what the networks are, also weights that are not here."""
        weights = [self.checkpoint, self.part(VAE), self.part(IMAGE_ENCODER)]
        return (*self.settings_files, *(file for path in weights for file in expected_files(path)))

    def _config(self, part: str) -> dict:
        layout = "the folder needs Stable Video Diffusion's unet, vae and image_encoder"
        return read_config(self.path / part / "config.json", layout)
