"""The base of generators from Wan checkpoints, which differ in how they condition on poses.

  python infer.py --generator wan-fun-control=FOLDER     Wan2.1-Fun-V1.1-Control: pose latents by channel
  python infer.py --generator wan-unianimate=FOLDER      UniAnimate-DiT: pose tokens are added
  python infer.py --generator wan-animate=FOLDER         Wan2.2-Animate: pose latents as tokens

FOLDER holds checkpoint and prompt embedding, as generators/wan/files.py says; vivace.toml there may set

  width = 480          # of the output; multiples of 16
  height = 832
  frames = 81          # of the video in a window; 1 more than a multiple of 4
  overlap = 4          # latent frames that windows share (wan-animate: keep = 1, frames of the video)
  steps = 50
  shift = 5.0
  guidance = 6.0
  sampler = "flow"     # or flow-diffusers, unipc, unipc-diffusers (generators/wan/settings.py)
  half = true          # latents in bfloat16 between steps, as upstream
  gpu = 0              # whose noise is drawn, by its multiprocessors (A100: 108, H100: 132); 0: a processor's
  tile_height = 30     # of the tiles that wan-unianimate decodes, in latents; tile_width = 52; 0: the whole

What is left out has the published value of its conditioner. A checkpoint can also be named in a file of your
own: a class that inherits from one of the three and gives its __init__ the folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.shared_parts import shared
from engines.spec import Cadence, ComponentSpec, Engine, TensorSpec
from generators.adapters import Lora, take_on
from generators.contract import Constants, Engines, GeneratorError
from generators.noise import CudaNormal, torch_normal
from generators.resize import square, stretch
from generators.samplers import bfloat16
from generators.settings import read_settings
from generators.wan.config import (
    VAE_STRIDE_HW,
    VAE_STRIDE_T,
    TransformerSize,
    clip_size,
    transformer_size,
    vae_size,
)
from generators.wan.files import Files
from generators.wan.settings import Settings
from generators.wan.tiles import Tiles
from generators.wan.vae_specs import IN, OUT, vae_specs
from generators.windows import ContinuationWindows, WindowRule

if TYPE_CHECKING:
    import torch

CODE = ("vae.py", "transformer.py", "conditioning.py", "load.py", "../clip/vision.py")
Picture = np.ndarray | None


class Wan(ABC):
    """A Wan model: latents (1, 16, F, h, w), flow matching, text and picture by cross-attention.

    A subclass is a conditioner.
    """

    name: str
    Settings: type[Settings]
    Size: type[TransformerSize] = TransformerSize
    channels: int  # that the transformer takes, in latents' 16s and masks
    network_maker: str  # in generators/wan/load.py
    denoiser: str  # in generators/wan/transformer.py
    adapted = False  # weights come from a base model and an adapter
    runs_blocks = True  # its denoiser does, and not the network's forward, as some techniques need
    truncate = True  # pixels between two levels become the lower one
    per_frame = frozenset({"pose"})
    resident = True
    frame_axis, chunk = 2, VAE_STRIDE_T
    chunked = frozenset()  # the frames of a latent frame are encoded and decoded together

    def __init__(self, folder: Path, loras: Sequence[Lora] = ()) -> None:
        self._loras = loras
        self.settings = read_settings(folder, self.Settings)
        self.files, here = Files(folder), Path(__file__).parent
        self.network = transformer_size(folder, self.Size)
        self.vae, self.clip = vae_size(folder), clip_size(folder)
        if self.network.in_channels != self.channels:
            raise GeneratorError(
                f"{folder} is no {self.name}: its network takes {self.network.in_channels} channels, "
                f"expected {self.channels}"
            )
        if self.network.out_channels != self.vae.z_dim:
            raise GeneratorError(
                f"{folder}: the network's {self.network.out_channels} channels are not the autoencoder's "
                f"{self.vae.z_dim}"
            )
        settings = self.settings
        self.size, self.scheduler = (settings.width, settings.height), settings.scheduler()
        self.guidance, self.guided = settings.guidance, settings.guidance != 1.0
        self.windows = self._windows()
        self.latent_size = settings.height // VAE_STRIDE_HW, settings.width // VAE_STRIDE_HW
        self._tiles = Tiles(self.latent_size, settings.tile)
        vae = vae_specs(self.vae, self.latent_size, self._tiles)
        # vivace.toml decides what is in the graphs only by shapes, which manifests have too, and by guidance.
        self.settings_files = self.files.settings
        self.fingerprint_files = (*self.files.weights(self.adapted), *(here / name for name in CODE))
        self.components = {spec.name: spec for spec in (*vae, self._image_kv(), *self._own())}
        take_on(self, loras, ["image_kv", "denoise"])

    @abstractmethod
    def _windows(self) -> WindowRule | ContinuationWindows:
        """Make the rule for clips longer than a window."""

    @abstractmethod
    def _own(self) -> tuple[ComponentSpec, ...]:
        """Describe the conditioner's components, the denoiser last."""

    @abstractmethod
    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray, *, original: Picture = None
    ) -> dict[str, np.ndarray]:
        """Compute the denoiser's other inputs; see Generator.condition."""

    def build(self, component: str) -> torch.nn.Module:
        """Build the component with its weights: the transformer's in the file's dtype, others in fp32."""
        from generators.wan import conditioning, load, vae

        (height, width), files = self.latent_size, self.files
        if component.startswith("encode"):
            caches = self.vae.encoder_caches(height * VAE_STRIDE_HW, width * VAE_STRIDE_HW)
            return vae.Encode(self._autoencoder(), caches).eval()
        if component.startswith("decode"):
            kind, size = (vae.DecodeTile, (1, 1)) if self._tiles.several else (vae.Decode, (height, width))
            return kind(self._autoencoder(), self.vae.decoder_caches(*size), self.truncate).eval()
        if component == "image_kv":
            return conditioning.ImageKv(load.load_clip(self.clip, files), self._loaded()).eval()
        prompts = load.load_prompts(files, self.guided)
        if prompts.shape[2] != self.network.text_dim:
            raise GeneratorError(
                f"{files.prompt}: embeddings of width {prompts.shape[2]}, "
                f"the network takes {self.network.text_dim}"
            )
        return self._denoiser(self._loaded(), prompts).eval()

    def _autoencoder(self) -> torch.nn.Module:
        """Load the autoencoder, once for all of its components that start together."""
        from generators.wan import load

        return shared(("vae", self.files.vae), lambda: load.load_vae(self.vae, self.files))

    def _loaded(self) -> torch.nn.Module:
        """Load the transformer with what the conditioner adds to it."""
        from generators.wan import load

        maker = getattr(load, self.network_maker)
        return load.load_network(maker, self.network, self.files, self.adapted, self._loras)

    def _denoiser(self, network: torch.nn.Module, prompts: torch.Tensor) -> torch.nn.Module:
        from generators.wan import transformer

        return getattr(transformer, self.denoiser)(network, prompts)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Stretch pictures to the output's size."""
        return stretch(pixels, *self.size)

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw (1, 16, frames, h, w) as torch does, on a processor or a GPU."""
        drawn = self.normal(seed)((1, self.vae.z_dim, frames, *self.latent_size))
        return bfloat16(drawn) if self.settings.half else drawn

    def normal(self, seed: int) -> Callable[[tuple[int, ...]], np.ndarray]:
        """Make a function that draws torch's normal numbers, call after call: a processor's, or a GPU's."""
        if self.settings.gpu:
            return CudaNormal(seed, self.settings.gpu)
        drawn = 0

        def draw(shape: tuple[int, ...]) -> np.ndarray:
            nonlocal drawn
            made = torch_normal(shape, seed, drawn)
            drawn += made.size
            return made

        return draw

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Predict the flow of one window; without guidance there is no other branch."""
        branch = {"branch": np.array([conditional], np.float32)} if self.guided else {}
        time = self.scheduler.times[step : step + 1]
        return engine(latents=latents, time=time, **constants, **branch)["flow"]

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decode the first frame's pixels, then four frames at a time."""
        return self.decode_pieces(engines, [latents])

    def decode_pieces(self, engines: Engines, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Decode latents that come in pieces; each frame, or tile, sees what the ones before it left."""
        caches: list[dict[str, np.ndarray]] = [{} for _ in self._tiles.places]
        for frame in (part for piece in pieces for part in np.split(piece, piece.shape[2], 2)):
            found = []
            for number, tile in enumerate(self._tiles.of(frame)):
                engine = engines["decode_next" if caches[number] else "decode_first"]
                made = engine(latents=tile, **caches[number])
                caches[number] = passed_on(made)
                found.append(made["values" if self._tiles.several else "pixels"])
            yield self._tiles.blended(found) if self._tiles.several else found[0]

    def encode(self, engines: Engines, groups: Iterable[tuple[np.ndarray, float]]) -> np.ndarray:
        """Encode groups of frames to latents (1, 16, groups, h, w); a factor of 0 makes a group grey."""
        return np.concatenate([*self.encode_pieces(engines, groups)], 2)

    def encode_pieces(
        self, engines: Engines, groups: Iterable[tuple[np.ndarray, float]]
    ) -> Iterator[np.ndarray]:
        """Encode group after group, each to latents (1, 16, 1, h, w)."""
        caches: dict[str, np.ndarray] = {}
        for pixels, keep in groups:
            engine = engines["encode_next" if caches else "encode_first"]
            kept = np.full(len(pixels), keep, np.float32)
            found = engine(pixels=pixels, keep=kept, **caches)
            caches = passed_on(found)
            yield found["latents"]

    def image_kv(self, engines: Engines, image: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the keys and values of a picture (1, any, any, 3), of which CLIP sees a square."""
        return engines["image_kv"](levels=square(image, self.clip.image_size))

    def picture(self, image: np.ndarray, original: np.ndarray | None) -> np.ndarray:
        """Bring the original picture to size by upstream's rule; image: it by fit, for want of the other.

        Where another fit was asked for than the generator's own, it is by that.
        """
        return image if original is None or "fit" in vars(self) else self.fit_picture(original)

    def fit_picture(self, pixels: np.ndarray) -> np.ndarray:
        """Stretch pictures to the output's size, as upstream does those of persons."""
        return stretch(pixels, *self.size, "bicubic")

    def nothing(self, groups: int) -> Iterator[tuple[np.ndarray, float]]:
        """Make groups of four grey frames, which stand for nothing, for encode()."""
        blank = np.zeros((VAE_STRIDE_T, self.size[1], self.size[0], 3), np.uint8)
        return ((blank, 0.0) for _ in range(groups))

    def _image_kv(self) -> ComponentSpec:
        levels = TensorSpec("levels", (1, self.clip.image_size, self.clip.image_size, 3))
        return ComponentSpec("image_kv", Cadence.REQUEST, (levels,), self._image_kv_tensors())

    def _image_kv_tensors(self) -> tuple[TensorSpec, TensorSpec]:
        shape = (self.network.num_layers, self.clip.tokens, self.network.dim)
        return TensorSpec("image_keys", shape), TensorSpec("image_values", shape)

    def _denoise(self, frames: int, *conditions: TensorSpec) -> ComponentSpec:
        latents = (1, self.vae.z_dim, frames, *self.latent_size)
        branch = (TensorSpec("branch", (1,)),) if self.guided else ()
        always = TensorSpec("latents", latents), TensorSpec("time", (1,))
        inputs = (*always, *conditions, *self._image_kv_tensors(), *branch)
        return ComponentSpec("denoise", Cadence.STEP, inputs, (TensorSpec("flow", latents),))


def passed_on(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a causal network's output caches to the inputs that take them for the next group."""
    return {name.replace(OUT, IN): array for name, array in found.items() if name.startswith(OUT)}


def known(pixels: Iterable[np.ndarray], keep: float = 1.0) -> Iterator[tuple[np.ndarray, float]]:
    """Pair groups of frames with the factor 1, for Wan.encode; 2: their levels were truncated before."""
    return ((group, keep) for group in pixels)
