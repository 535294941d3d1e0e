"""Load the components from the files of a folder as torch modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from generators.adapters import Lora
from generators.checkpoint import fill, open_checkpoint, weightless
from generators.clip.vision import ClipVision
from generators.contract import FULL, SHALLOW
from generators.lora import merge_all
from generators.refnet.files import DENOISER, GUIDER, IMAGE_ENCODER, MOTION, REFERENCE, VAE, Folder
from generators.refnet.pictures import Decode, Encode, ImageEmbed, PoseGuider
from generators.refnet.unet import Attend, Denoise, Embed, Reference, Shallow, add_motion

PLAIN = ("DownBlock2D", "UpBlock2D")
# As sd-vae-ft-mse names its attention.
OLD_NAMES = ((r"\.query\.", ".to_q."), (r"\.key\.", ".to_k."), (r"\.value\.", ".to_v."),
             (r"\.proj_attn\.", ".to_out.0."))  # fmt: skip
PLACES = r"\.pos_encoder\.pe$"  # computed, not trained


def build_component(component: str, folder: Folder, loras: Sequence[Lora] = ()) -> nn.Module:
    """Build the component with the folder's weights; GeneratorError.

    The denoisers keep the file's own tensors, mapped; the others are in float32.
    """
    if component == SHALLOW:
        return Shallow(load_denoiser(folder, loras))
    if component in ("denoise", FULL):
        return Denoise(load_denoiser(folder, loras), features=component == FULL)
    if component == "embed":
        made = Embed(load_denoiser(folder, loras))
    elif component == "image_embed":
        made = ImageEmbed(load_clip(folder), Attend(load_denoiser(folder, loras)))
    elif component == "reference":
        made = Reference(load_reference(folder), load_denoiser(folder, loras))
    elif component == "pose":
        made = load_guider(folder)
    elif component == "encode":
        made = Encode(load_vae(folder))
    else:
        made = Decode(load_vae(folder), folder.settings.half)
    return made.float()


def make_unet(sizes: Mapping[str, object]) -> UNet2DConditionModel:
    """Make a U-Net of Stable Diffusion 1.5's kind: attention at all levels but the last."""
    cross = len(sizes["block_out_channels"]) - 1
    return UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",) * cross + PLAIN[:1],
        up_block_types=PLAIN[1:] + ("CrossAttnUpBlock2D",) * cross,
        **sizes,
    )


def load_denoiser(folder: Folder, loras: Sequence[Lora] = ()) -> UNet2DConditionModel:
    """Load the denoising U-Net: motion modules from their own file, all else from the other one's."""
    with weightless():
        unet = add_motion(make_unet(folder.unet), folder.settings.window)
    both = [open_checkpoint(folder.path / name).tensors() for name in (MOTION, DENOISER)]
    origin = f"{folder.path / DENOISER} with {MOTION}"
    return fill(unet, merge_all(both[0] | both[1], loras, reads_text=False), origin, ignored=[PLACES])


def load_reference(folder: Folder) -> UNet2DConditionModel:
    """Load the reference U-Net, which has no last layers."""
    with weightless():
        unet = make_unet(folder.unet)
    del unet.conv_norm_out, unet.conv_out
    path = folder.path / REFERENCE
    return fill(unet, open_checkpoint(path).tensors(), path, ignored=[r"^conv_(norm_)?out\."])


def load_guider(folder: Folder) -> PoseGuider:
    """Load the pose guider."""
    with weightless():
        guider = PoseGuider(folder.channels)
    return fill(guider, open_checkpoint(folder.path / GUIDER).tensors(), folder.path / GUIDER)


def load_vae(folder: Folder) -> AutoencoderKL:
    """Load the autoencoder."""
    with weightless():
        vae = AutoencoderKL.from_config(folder.vae)
    path = folder.path / VAE
    return fill(vae, open_checkpoint(path).renamed(OLD_NAMES).tensors(), path, torch.float32)


def load_clip(folder: Folder) -> ClipVision:
    """Load the image encoder."""
    with weightless():
        clip = ClipVision(folder.clip, folder.quick)
    path = folder.path / IMAGE_ENCODER
    return fill(clip, open_checkpoint(path).tensors(), path, torch.float32, ignored=[r"position_ids$"])
