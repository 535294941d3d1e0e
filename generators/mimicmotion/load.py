"""Load the components from the files of a folder as torch modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import nn

from engines.shared_parts import shared
from generators.adapters import Lora
from generators.checkpoint import fill, open_checkpoint, weightless
from generators.clip.vision import ClipVision
from generators.contract import FULL, SHALLOW, GeneratorError
from generators.lora import merge_all
from generators.mimicmotion.files import IMAGE_ENCODER, VAE, Folder
from generators.mimicmotion.image_embedding import ImageEmbed
from generators.mimicmotion.pose_net import PoseNet
from generators.mimicmotion.unet import Attend, Denoise, Embed, Shallow
from generators.mimicmotion.vae import Decode, Encode, Pose


def build_component(
    component: str, folder: Folder, width: int, height: int, loras: Sequence[Lora] = ()
) -> nn.Module:
    """Build the component with the folder's weights, for pictures of that size; GeneratorError.

    The denoisers keep the file's own tensors, mapped and in half precision; the others are in float32.
    """
    settings = folder.settings
    if component == SHALLOW:
        return Shallow(load_unet(folder, loras), settings.tile)
    if component in ("denoise", FULL):
        return Denoise(load_unet(folder, loras), settings.tile, features=component == FULL)
    if component == "embed":
        ids = (settings.fps - 1, settings.motion_bucket, 0)  # the picture is given without noise
        made = Embed(load_unet(folder, loras), tuple(map(float, ids)))
    elif component == "image_embed":
        made = ImageEmbed(load_clip(folder), Attend(load_unet(folder, loras)), height, width)
    elif component == "pose":
        made = Pose(load_pose_net(folder))
    else:
        made = {"encode": Encode, "decode": Decode}[component](
            shared(("vae", folder.part(VAE)), lambda: load_vae(folder))
        )
    return made.float()


def load_unet(folder: Folder, loras: Sequence[Lora] = ()) -> UNetSpatioTemporalConditionModel:
    """Load the U-Net of the checkpoint, of the size that Stable Video Diffusion's config says."""
    if folder.unet.get("transformer_layers_per_block", 1) != 1:
        raise GeneratorError(f"{folder.path}: its U-Net has several transformer layers a block, not one")
    with weightless():
        unet = UNetSpatioTemporalConditionModel.from_config(folder.unet)
    checkpoint = open_checkpoint(folder.checkpoint).part("unet.")
    return fill(unet, merge_all(checkpoint.tensors(), loras, reads_text=False), folder.checkpoint)


def load_pose_net(folder: Folder) -> PoseNet:
    """Load the pose network of the checkpoint."""
    with weightless():
        pose_net = PoseNet(folder.channels)
    checkpoint = open_checkpoint(folder.checkpoint).part("pose_net.")
    return fill(pose_net, checkpoint.tensors(), folder.checkpoint)


def load_vae(folder: Folder) -> AutoencoderKLTemporalDecoder:
    """Load Stable Video Diffusion's autoencoder."""
    with weightless():
        vae = AutoencoderKLTemporalDecoder.from_config(folder.vae)
    return fill(vae, open_checkpoint(folder.part(VAE)).tensors(), folder.part(VAE), torch.float32)


def load_clip(folder: Folder) -> ClipVision:
    """Load Stable Video Diffusion's image encoder."""
    with weightless():
        clip = ClipVision(folder.clip)
    path = folder.part(IMAGE_ENCODER)
    return fill(clip, open_checkpoint(path).tensors(), path, torch.float32, ignored=[r"position_ids$"])
