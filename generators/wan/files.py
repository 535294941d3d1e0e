"""The places of a Wan checkpoint's parts in its folder; nothing here imports torch.

diffusers' layout                       original layout
transformer/  (config.json, weights)    config.json, diffusion_pytorch_model*.safetensors
vae/                                    Wan2.1_VAE.pth
image_encoder/                          models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth

prompt.safetensors    `prompt` (tokens, 4096): UMT5's embedding of the fixed prompt, zeros after its length;
                      `negative`, as long, where there is guidance. python -m generators.wan writes it
adapter.safetensors or UniAnimate*.ckpt    UniAnimate's adapter and pose networks
vivace.toml           size and sampling, see generators/wan/generator.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generators.contract import GeneratorError
from generators.settings import FILE
from generators.weight_files import expected_files

CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"


@dataclass(frozen=True)
class Files:
    """The paths of a checkpoint's parts in a folder, whether they are there or not."""

    folder: Path

    @property
    def transformer(self) -> Path:
        """The transformer: a folder, a file, or the first of several; GeneratorError: there is none."""
        if (self.folder / "transformer").is_dir():
            return self.folder / "transformer"
        found = sorted(self.folder.glob("diffusion_pytorch_model*.safetensors"))
        if not found:
            raise GeneratorError(
                f"{self.folder} has no network: neither transformer/ nor diffusion_pytorch_model*.safetensors"
            )
        return found[0]

    @property
    def vae(self) -> Path:
        """The part's folder or file."""
        return self._either("vae", "Wan2.1_VAE.pth")

    @property
    def image_encoder(self) -> Path:
        """The part's folder or file."""
        return self._either("image_encoder", CLIP_FILE)

    @property
    def settings(self) -> tuple[Path, ...]:
        """The files that say how large the networks are and how to sample, as far as they are here."""
        configs = (self.folder / part / "config.json" for part in ("", "transformer", "vae", "image_encoder"))
        return tuple(path for path in (self.folder / FILE, *configs) if path.is_file())

    @property
    def prompt(self) -> Path:
        """The text embeddings."""
        return self.folder / "prompt.safetensors"

    @property
    def adapter(self) -> Path:
        """The file that UniAnimate adds to its base model."""
        return next(iter(sorted(self.folder.glob("UniAnimate*.ckpt"))), self.folder / "adapter.safetensors")

    def weights(self, adapted: bool) -> tuple[Path, ...]:
        """List all weight files, also those that are not here."""
        try:
            parts = [self.transformer]
        except GeneratorError:
            parts = [self.folder / "transformer"]
        parts += [self.vae, self.image_encoder, self.prompt, *[self.adapter] * adapted]
        return tuple(file for part in parts for file in expected_files(part))

    def _either(self, folder: str, file: str) -> Path:
        return self.folder / folder if (self.folder / folder).is_dir() else self.folder / file
