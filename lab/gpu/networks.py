"""Make the networks that are measured: at full size, or tiny for a rehearsal and comparison with fp32."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn

from engines.spec import ComponentSpec
from generators.checkpoint import fill, weightless
from generators.mimicmotion.files import HALVES, Settings
from generators.mimicmotion.generator import MimicMotion
from generators.mimicmotion.random_weights import CONFIGS
from generators.mimicmotion.unet import Denoise
from generators.presenter import AUTOENCODER_FILE, DENOISER_FILE
from generators.presenter.generator import Presenter
from generators.presenter.load import save_weights
from generators.presenter.model import Autoencoder, AutoencoderSize, DenoiserSize
from generators.presenter.model import Denoise as PresenterDenoise
from generators.wan import load, transformer, vae
from generators.wan.config import TransformerSize, VaeSize
from generators.wan.fun_control import FunControl
from lab.gpu.random_init import normal, random_init

# Wan2.1-Fun-V1.1-1.3B-Control's transformer/config.json; and the least that has each of its parts.
SIZES = {
    "full": TransformerSize(num_attention_heads=12, in_channels=48, ffn_dim=8960, num_layers=30),
    "tiny": TransformerSize(
        num_attention_heads=2, attention_head_dim=16, in_channels=48, text_dim=16, freq_dim=16, ffn_dim=48,
        num_layers=2, image_dim=32,
    ),
}  # fmt: skip
VAES = {"full": VaeSize(), "tiny": VaeSize(base_dim=8, dim_mult=(1, 2, 2, 2), num_res_blocks=1)}
PROMPT = 512  # tokens, of which most are padding; the network sees all


@dataclass(frozen=True)
class Model:
    """A network to measure: build(device, dtype) as this project runs it; sizes of its spec's named dims.

    same_dtype: inputs go in in the module's dtype, because it does not cast them itself.
    """

    spec: ComponentSpec
    build: Callable[[str, torch.dtype], nn.Module]
    sizes: Mapping[str, int] = field(default_factory=dict)
    same_dtype: bool = False


class Small(Presenter):
    """The presenter's own classes with small random weights, for 32x48 pixels."""

    name = "small"
    size = (32, 48)

    def __init__(self, folder: Path) -> None:
        if not (folder / DENOISER_FILE).is_file():
            torch.manual_seed(0)
            save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
            save_weights(PresenterDenoise(DenoiserSize(1, 24, 1, 32)), folder / DENOISER_FILE)
        super().__init__(folder)


def presenter(size: str) -> Model:
    """Return the bundled generator's step of its only window."""
    if size == "full":
        return denoiser_of(Presenter())
    with TemporaryDirectory() as folder:
        return denoiser_of(Small(Path(folder)))


def denoiser_of(generator: Presenter) -> Model:
    """Return a generator's denoiser with its own weights."""
    network = generator.build("denoise")

    def build(device: str, dtype: torch.dtype) -> nn.Module:
        with weightless():
            empty = PresenterDenoise(network.size)
        own = {name: tensor.to(device, dtype) for name, tensor in network.state_dict().items()}
        return fill(empty, own, "its weights").to(device)

    return Model(generator.components["denoise"], build, {"b": 1}, same_dtype=True)


def wan(size: str) -> Model:
    """Return a step of a window of 81 frames at 832x480 pixels, for one branch."""
    generator = _wan(size)

    def build(device: str, dtype: torch.dtype) -> nn.Module:
        network = random_init(lambda: load.fun_control_network(generator.network), device, dtype)
        prompts = normal((2, PROMPT, generator.network.text_dim), device)
        return transformer.FunControl(network, prompts).eval()

    return Model(generator.components["denoise"], build)


def wan_decode(size: str) -> Model:
    """Return the decoder of four frames from a latent one, not the first: 20 calls for 81 frames."""
    generator = _wan(size)
    caches = generator.vae.decoder_caches(*generator.latent_size)

    def build(device: str, dtype: torch.dtype) -> nn.Module:
        network = random_init(lambda: vae.autoencoder(generator.vae), device, dtype)
        return vae.Decode(network, caches, generator.truncate).to(device, dtype).eval()

    return Model(generator.components["decode_next"], build, same_dtype=True)


def mimicmotion(size: str) -> Model:
    """Return a step of a window of 72 frames at 576x1024 pixels, for one branch."""
    configs, generator = CONFIGS[size], _mimicmotion(size)
    frames = generator.windows.length

    def build(device: str, dtype: torch.dtype) -> nn.Module:
        make = partial(UNetSpatioTemporalConditionModel.from_config, configs["unet"])
        return Denoise(random_init(make, device, dtype), frames).to(device, dtype).eval()

    return Model(generator.components["denoise"], build, {"b": 1, "f": frames})


def _mimicmotion(size: str) -> MimicMotion:
    width, height, frames = (576, 1024, 72) if size == "full" else (64, 64, 3)
    settings = {"width": width, "height": height, "tile": frames, "overlap": 1}
    files = (Settings.checkpoint, *(f"{part}/{file}" for part, file in HALVES.items()))
    return _of_folder(MimicMotion, CONFIGS[size], settings, files)


def _wan(size: str) -> FunControl:
    width, height, frames = (832, 480, 81) if size == "full" else (48, 32, 5)
    configs = {"transformer": asdict(SIZES[size]), "vae": asdict(VAES[size])}
    settings = {"width": width, "height": height, "frames": frames, "overlap": 1}
    return _of_folder(FunControl, configs, settings)


def _of_folder(kind: type, configs: Mapping, settings: Mapping[str, int], files: tuple[str, ...] = ()):
    """Return the generator of a folder that has everything but weights."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, config in configs.items():
            (folder / part).mkdir()
            (folder / part / "config.json").write_text(json.dumps(config))
        for file in files:
            (folder / file).touch()
        lines = [f"{key} = {value}\n" for key, value in settings.items()]
        (folder / "vivace.toml").write_text("".join(lines))
        return kind(folder)


def _presenter(size: str) -> Presenter:
    return Presenter()


NETWORKS = {"presenter": presenter, "wan-decode": wan_decode, "mimicmotion-72": mimicmotion, "wan-81": wan}
# Generators to count on, with the frames of a video.
VIDEOS = {"presenter": (_presenter, 48), "wan-fun-control": (_wan, 81), "mimicmotion": (_mimicmotion, 72)}
