"""The files of an AnimateAnyone folder (Moore's pretrained_weights): settings, sizes, weights; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generators.clip.size import ClipSize
from generators.settings import FILE, read_config, read_settings
from generators.weight_files import expected_files

DENOISER, MOTION = "denoising_unet.pth", "motion_module.pth"
REFERENCE, GUIDER = "reference_unet.pth", "pose_guider.pth"
VAE, IMAGE_ENCODER = "sd-vae-ft-mse", "image_encoder"
UNETS = ("stable-diffusion-v1-5/unet", "sd-image-variations-diffusers/unet")  # Moore's, MusePose's
CROSS = "CrossAttn"  # what types of blocks with attention begin with
STRIDE = 8  # pixels of a latent's side
# Stable Diffusion 1.5's U-Net, where its config is not there: of its weights upstream keeps none.
SD15 = {
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8, "norm_num_groups": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The settings in FOLDER/vivace.toml; the defaults are those of upstream's pose2vid.

    window, overlap: of windows, in frames (context_frames, context_overlap). around: they go on from the
    clip's end to its beginning, else the last frame is held until they fit, as MusePose does. half: noise and
    latents are kept in half precision between steps, and pictures behind the decoder, as upstream does.
    swap_red_blue: of skeletons whose limb from neck to right shoulder is not red, as in the model's own.
    short_bank: the unconditional branch is given one token of each bank in place of all, hidden, which
    engines of fixed shapes cannot take. shallow: there are components for the action H of step plans too.
    """

    width: int = 512
    height: int = 784
    steps: int = 30
    guidance: float = 3.5
    window: int = 24
    overlap: int = 4
    around: bool = True
    chunk: int = 8
    half: bool = True
    swap_red_blue: bool = False
    short_bank: bool = True
    shallow: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.chunk) < 1 or self.width % STRIDE or self.height % STRIDE:
            raise ValueError(f"chunk must be 1 or more, width and height multiples of {STRIDE}")


@dataclass(frozen=True)
class Layer:
    """A layer of the U-Net: its channels, its level (0: the largest), and whether it has attention."""

    channels: int
    level: int
    attention: bool


class Folder:
    """A folder in Moore-AnimateAnyone's layout."""

    def __init__(self, path: Path) -> None:
        self.path, self.settings = path, read_settings(path, Settings)
        found = [file for file in (path / part / "config.json" for part in UNETS) if file.is_file()]
        self.unet_config = found[:1]
        own = read_config(found[0]) if found else {}
        self.unet = {name: own.get(name, value) for name, value in SD15.items()}
        layout = f"the folder needs {VAE} and {IMAGE_ENCODER} beside {DENOISER} and the other three"
        self.vae, self._image_encoder = (
            read_config(path / part / "config.json", layout) for part in (VAE, IMAGE_ENCODER)
        )

    @property
    def channels(self) -> int:
        """The channels of the U-Net's first level, and so of pose features."""
        return self.unet["block_out_channels"][0]

    @property
    def layers(self) -> list[Layer]:
        """The U-Net's residual blocks, in the order in which they run; the last level has no attention."""
        sizes, count = self.unet["block_out_channels"], self.unet["layers_per_block"]
        last = len(sizes) - 1
        down = [Layer(size, at, at < last) for at, size in enumerate(sizes) for _ in range(count)]
        mid = [Layer(sizes[-1], last, True), Layer(sizes[-1], last, False)]
        up = [Layer(size, at, at < last) for at, size in enumerate(sizes) for _ in range(count + 1)]
        return [*down, *mid, *sorted(up, key=lambda layer: -layer.level)]

    @property
    def embedded(self) -> int:
        """The length of a row of Embed."""
        return sum(layer.channels for layer in self.layers)

    @property
    def attentions(self) -> list[Layer]:
        """The layers with attention."""
        return [layer for layer in self.layers if layer.attention]

    @property
    def image_context(self) -> int:
        """The length of a row of the image context."""
        return sum(layer.channels for layer in self.attentions)

    def tokens(self, level: int) -> int:
        """Count the places of a picture at a level, whose sides are half of the last one's, or a bit more."""
        width, height = self.settings.width // STRIDE, self.settings.height // STRIDE
        return -(-width // 2**level) * -(-height // 2**level)

    @property
    def clip(self) -> ClipSize:
        """The image encoder's size."""
        return ClipSize(**{name: self._image_encoder[name] for name in ClipSize.__dataclass_fields__})

    @property
    def quick(self) -> bool:
        """Whether the image encoder's activation is quick_gelu, as it is where its config says none."""
        return self._image_encoder.get("hidden_act", "quick_gelu") == "quick_gelu"

    @property
    def settings_files(self) -> tuple[Path, ...]:
        """The settings, where there are some, and the networks' configs."""
        configs = (self.path / part / "config.json" for part in (VAE, IMAGE_ENCODER))
        return (*[self.path / FILE] * (self.path / FILE).is_file(), *self.unet_config, *configs)

    @property
    def files(self) -> tuple[Path, ...]:
        """List all files that decide what the networks are, also weights that are not here."""
        parts = (DENOISER, MOTION, REFERENCE, GUIDER, VAE, IMAGE_ENCODER)
        weights = (file for part in parts for file in expected_files(self.path / part))
        return (*self.settings_files, *weights)
