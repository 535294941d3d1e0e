"""Read and write the presenter's weights: fp16 safetensors that carry the network's size as metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engines.files import atomic_write
from generators.adapters import Lora
from generators.contract import GeneratorError
from generators.lora import merge_all
from generators.presenter import AUTOENCODER_FILE, DENOISER_FILE
from generators.presenter.model import Autoencoder, AutoencoderSize, Decode, Denoise, DenoiserSize, Encode


def build_component(component: str, weights: Path, loras: Sequence[Lora] = ()) -> torch.nn.Module:
    """Build encode, denoise or decode with weights from a folder, float32, for inference."""
    if component == "denoise":
        return load_denoiser(weights / DENOISER_FILE, loras)
    return {"encode": Encode, "decode": Decode}[component](
        load_autoencoder(weights / AUTOENCODER_FILE)
    ).eval()


def load_autoencoder(path: Path) -> Autoencoder:
    """Load the autoencoder of a weights file."""
    return load_network(path, lambda size: Autoencoder(AutoencoderSize(**size)))


def load_denoiser(path: Path, loras: Sequence[Lora] = ()) -> Denoise:
    """Load the denoiser of a weights file, with adapters merged into it."""
    return load_network(path, lambda size: Denoise(DenoiserSize(**size)), loras=loras)


def load_network(
    path: Path,
    make: Callable[[dict[str, int]], torch.nn.Module],
    trained_by: str = "python -m lab.presenter train",
    loras: Sequence[Lora] = (),
) -> torch.nn.Module:
    """Load a network of save_weights for inference; make builds it from its size. GeneratorError."""
    if not path.is_file():
        raise GeneratorError(f"no weights at {path}; train them with: {trained_by}")
    tensors, size = _read(path)
    return _filled(make(size), merge_all(tensors, loras), path)


def save_weights(network: torch.nn.Module, path: Path) -> Path:
    """Write fp16 safetensors, whole or not at all; network.size is a dataclass of whole numbers."""
    tensors = network.state_dict().items()
    halves = {name: tensor.detach().half().contiguous().cpu() for name, tensor in tensors}
    with atomic_write(path) as draft:
        save_file(halves, draft, {key: str(value) for key, value in asdict(network.size).items()})
    return path


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    with safe_open(path, "pt") as file:
        if not file.metadata():
            raise GeneratorError(f"{path} lacks its network's size; weights of another program?")
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, {key: int(value) for key, value in file.metadata().items() if key != "format"}


def _filled(network: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise GeneratorError(
            f"{path} does not fit the network, of another version? {str(error).splitlines()[1].strip()}"
        ) from error
    return network.eval()
