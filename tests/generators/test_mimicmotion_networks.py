"""MimicMotion's networks: published names and sizes, and rewrites that compute what diffusers' classes do."""

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

import pipeline.sampler
from engines.backends.torch_backend import TorchEngine
from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision, normalise
from generators.mimicmotion.files import UNET, VAE, Folder
from generators.mimicmotion.image_embedding import ImageEmbed, reduction
from generators.mimicmotion.pose_net import PoseNet
from generators.mimicmotion.random_weights import CONFIGS
from generators.mimicmotion.unet import Attend, Denoise, Embed, residual_blocks, transformers
from generators.mimicmotion.vae import Decode, Encode, to_input
from tests.tiny_mimicmotion import clip, write_tiny
from tests.upstream_mimicmotion import clip_input

FRAMES, IDS = 6, (6.0, 127.0, 0.0)


def numbers(module):
    return sum(tensor.numel() for tensor in module.state_dict().values())


@pytest.fixture(scope="module")
def full():
    """The U-Net of the published size, without numbers."""
    with torch.device("meta"):
        return UNetSpatioTemporalConditionModel.from_config(CONFIGS["full"][UNET])


def test_the_u_net_has_the_published_tensors_and_blocks(full):
    assert len(full.state_dict()) == 1428 and numbers(full) == 1_524_623_082
    assert len(residual_blocks(full)) == 22 and len(transformers(full)) == 16
    shapes = {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
    assert shapes["conv_in.weight"] == (320, 8, 3, 3) and shapes["conv_out.weight"] == (4, 320, 3, 3)
    assert shapes["add_embedding.linear_1.weight"] == (1280, 768)
    temporal = "down_blocks.2.attentions.1.temporal_transformer_blocks.0"
    assert shapes[f"{temporal}.attn2.to_k.weight"] == (1280, 1024)
    assert shapes[f"{temporal}.ff_in.net.0.proj.weight"] == (10240, 1280)
    assert shapes["up_blocks.3.resnets.2.temporal_res_block.conv1.weight"] == (320, 320, 3, 1, 1)


def test_the_pose_net_has_the_published_tensors():
    shapes = {name: tuple(tensor.shape) for name, tensor in PoseNet().state_dict().items()}
    assert len(shapes) == 19 and numbers(PoseNet()) == 205_557
    kernels = [shapes[f"conv_layers.{place}.weight"] for place in range(0, 16, 2)]
    assert kernels == [(3, 3, 3, 3), (16, 3, 4, 4), (16, 16, 3, 3), (32, 16, 4, 4), (32, 32, 3, 3),
                       (64, 32, 4, 4), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert shapes["final_proj.weight"] == (320, 128, 1, 1) and shapes["scale"] == (1,)
    assert PoseNet()(torch.zeros(2, 3, 64, 48)).shape == (2, 320, 8, 6)


def test_the_autoencoder_and_the_image_encoder_have_the_published_sizes():
    with torch.device("meta"):
        vae = AutoencoderKLTemporalDecoder.from_config(CONFIGS["full"][VAE])
        image_encoder = ClipVision(ClipSize(projection_dim=1024))
    assert len(vae.state_dict()) == 374 and numbers(vae.decoder) == pytest.approx(63.58e6, rel=1e-3)
    assert numbers(vae) == pytest.approx(97.74e6, rel=1e-3)
    assert numbers(image_encoder) == pytest.approx(632e6, rel=1e-3)


def test_a_sixth_of_the_u_net_s_weights_is_constants_and_leaves_the_denoiser(full, tmp_path):
    unet = copy.deepcopy(full)
    embed, attend, denoise = Embed(unet, IDS), Attend(unet), Denoise(unet, 16)
    assert numbers(attend) == 50_364_800 and numbers(embed) == 56_324_480
    tables = sum(block.places.numel() for block in transformers(unet))
    assert numbers(denoise) - tables == pytest.approx(0.832 * numbers(full), rel=1e-3)
    for part, config in CONFIGS["full"].items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    folder = Folder(tmp_path)
    assert folder.embedded == sum(each.out_features for each in embed.projections) == 40320
    assert folder.image_context == sum(each.out_features for each in attend.outputs) == 24960


@pytest.fixture(scope="module")
def tiny_unet():
    """A small U-Net with random numbers everywhere, so that nothing can be left out unnoticed."""
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel.from_config(CONFIGS["tiny"][UNET]).eval().requires_grad_(False)
    for name, weight in unet.named_parameters():
        wide = 3.0 if "to_q" in name or "to_k" in name else 1.0  # else attention is to all tokens alike
        spread = wide / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.3
        weight.data = torch.randn_like(weight) * spread + (weight.ndim == 1 and name.endswith("weight"))
    return unet


def captured(unet, layers, inputs):
    """What those layers give while the U-Net runs, in the order of layers."""
    found = {}
    hooks = [layer.register_forward_hook(lambda *run, name=name: found.setdefault(name, run[2]))
             for name, layer in enumerate(layers)]
    with torch.inference_mode():
        made = unet(*inputs, return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    return made, [found[name] for name in range(len(layers))]


def plain_inputs(seed=0, frames=FRAMES):
    generator = torch.Generator().manual_seed(seed)
    x, image, pose = (torch.randn(1, frames, channels, 8, 8, generator=generator) for channels in (4, 4, 32))
    return x, image[:, 0], pose, torch.randn(1, 16, generator=generator), torch.tensor([1.6])


def test_embed_gives_what_every_residual_block_computes_of_the_time(tiny_unet):
    x, image, _, token, time = plain_inputs()
    beside = image[:, None].expand(-1, FRAMES, -1, -1, -1)
    blocks = residual_blocks(tiny_unet)
    layers = [part.time_emb_proj for block in blocks
              for part in (block.spatial_res_block, block.temporal_res_block)]
    inputs = (torch.cat([x, beside], 2), time, token[:, None], torch.tensor([IDS]))
    _, wanted = captured(tiny_unet, layers, inputs)
    row = torch.cat([each.reshape(-1, each.shape[-1])[:1] for each in wanted], 1)
    with torch.inference_mode():
        found = Embed(tiny_unet, IDS)(torch.cat([time, -time]))
    assert abs(found[:1] - row).max() <= 1e-5 and abs(found[1] - found[0]).max() > 0.01


def test_attend_gives_what_attention_to_one_token_computes_wherever_it_is_asked(tiny_unet):
    x, image, _, token, time = plain_inputs()
    blocks = [part[0] for block in transformers(tiny_unet)
              for part in (block.transformer_blocks, block.temporal_transformer_blocks)]
    inputs = (torch.cat([x, x], 2), time, token[:, None], torch.tensor([IDS]))
    _, wanted = captured(tiny_unet, [block.attn2 for block in blocks], inputs)
    with torch.inference_mode():
        found = Attend(tiny_unet)(token).split([each.shape[-1] for each in wanted], 1)
    assert len(wanted) == 8
    for each, constant in zip(wanted, found, strict=True):
        assert abs(each - constant[:, None]).max() <= 1e-5  # for every query, place and frame
    with torch.inference_mode():
        nothing = Attend(tiny_unet)(torch.zeros_like(token))
    assert torch.equal(nothing[0], torch.cat([block.attn2.to_out[0].bias for block in blocks]))


@pytest.mark.parametrize("frames", [2, FRAMES])
def test_denoise_is_the_u_net_with_both_branches_apart_or_in_one_batch(tiny_unet, frames):
    x, image, pose, token, time = (each.double() for each in plain_inputs(3, frames))
    tiny_unet = copy.deepcopy(tiny_unet).double()  # in fp32 attention enlarges roundings to 4e-5
    unet = copy.deepcopy(tiny_unet)
    embed, attend, denoise = Embed(unet, IDS), Attend(unet), Denoise(unet, FRAMES)
    wanted = []
    for seen in (0.0, 1.0):
        beside = image[:, None].expand(-1, frames, -1, -1, -1) * seen
        hook = tiny_unet.conv_in.register_forward_hook(lambda *run, seen=seen: run[2] + pose[0] * seen)
        with torch.inference_mode():
            wanted.append(tiny_unet(torch.cat([x, beside], 2), time, token[:, None] * seen,
                                    torch.tensor([IDS]).double(), return_dict=False)[0])
        hook.remove()
    with torch.inference_mode():
        row, values = embed(time), attend(torch.cat([torch.zeros_like(token), token]))
        both = denoise(x.expand(2, -1, -1, -1, -1), image, pose, torch.tensor([0.0, 1.0]),
                       row.expand(2, -1), values)
        apart = [denoise(x, image, pose, torch.tensor([seen]), row, values[i:i + 1])
                 for i, seen in enumerate((0.0, 1.0))]
    for found in (both, torch.cat(apart)):
        assert abs(found - torch.cat(wanted)).max() <= 1e-5
    assert wanted[0].std() > 0.1 and abs(wanted[1] - wanted[0]).max() > 0.1


@pytest.mark.parametrize("name", [
    "down_blocks.0.resnets.0.temporal_res_block.conv2.weight", "mid_block.resnets.1.time_mixer.mix_factor",
    "up_blocks.1.attentions.1.temporal_transformer_blocks.0.ff_in.net.0.proj.bias",
    "mid_block.attentions.0.temporal_transformer_blocks.0.attn1.to_k.weight",
    "down_blocks.0.attentions.0.time_pos_embed.linear_2.bias",
    "up_blocks.0.resnets.1.spatial_res_block.conv_shortcut.bias",
])  # fmt: skip
def test_the_comparison_would_notice_a_tensor_that_is_not_used(tiny_unet, name):
    x, image, _, token, time = plain_inputs()
    inputs = (torch.cat([x, x], 2), time, token[:, None], torch.tensor([IDS]))
    weight = dict(tiny_unet.named_parameters())[name]
    kept = weight.data
    with torch.inference_mode():
        base = tiny_unet(*inputs, return_dict=False)[0]
        weight.data = kept.flip(0) if kept.shape[0] > 1 else kept + 1
        assert abs(tiny_unet(*inputs, return_dict=False)[0] - base).max() > 1e-4
    weight.data = kept


def test_encode_and_decode_are_the_autoencoder_s(tmp_path):
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder.from_config(CONFIGS["tiny"][VAE]).eval()
    for name, weight in vae.named_parameters():
        if "mix_factor" in name:
            weight.data = torch.randn_like(weight)
    plain, latents = copy.deepcopy(vae), torch.randn(5, 4, 4, 6)
    pixels = torch.randint(0, 256, (1, 64, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = plain.decode(latents / plain.config.scaling_factor, num_frames=5).sample
        found, sizes = Decode(vae)(latents)
        encoded, mean = Encode(vae)(pixels), plain.encode(to_input(pixels)).latent_dist.mode()
    levels = ((wanted / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).to(torch.uint8)
    assert abs(found.int() - levels.int()).max() <= 1 and (found != levels).float().mean() < 1e-3
    assert abs(sizes - wanted.abs().mean((1, 2, 3))).max() <= 1e-5 and abs(encoded - mean).max() <= 1e-5


def test_describe_looks_at_the_picture_as_upstream_does(tiny_unet):
    torch.manual_seed(0)
    size = ClipSize(**CONFIGS["tiny"]["image_encoder"])
    pixels = torch.randint(0, 256, (1, 128, 64, 3), dtype=torch.uint8)
    small = reduction(128, 28) @ to_input(pixels) @ reduction(64, 28).T
    assert abs(normalise(small) - clip_input(to_input(pixels), 28)).max() <= 1e-5
    image_encoder, attend = ClipVision(size).eval(), Attend(tiny_unet)
    with torch.inference_mode():
        rows = ImageEmbed(image_encoder, attend, 128, 64)(pixels)
        assert abs(rows[1:] - attend(image_encoder.embed(normalise(small)))).max() <= 1e-5
        assert torch.equal(rows[:1], attend(torch.zeros(1, 16)))


def test_what_is_constant_runs_once_and_the_denoiser_as_often_as_planned(tmp_path):
    """Upstream runs the pose network on every frame of every window at every step."""
    class Counting(TorchEngine):
        def __init__(self, spec, module):
            super().__init__(spec, module)
            self.calls, self.frames = 0, 0

        def __call__(self, **arrays):
            self.calls, self.frames = self.calls + 1, self.frames + len(next(iter(arrays.values())))
            return super().__call__(**arrays)

    generator = write_tiny(tmp_path)
    engines = {name: Counting(spec, generator.build(name)) for name, spec in generator.components.items()}
    skeletons, image = clip(11)
    pipeline.sampler.generate(generator, engines, skeletons, image, 1)
    assert engines["pose"].frames == 11
    assert [engines[name].calls for name in ("encode", "image_embed", "embed")] == [1, 1, 1]
    windows, branches, steps = 3, 2, 3
    assert engines["denoise"].calls == windows * branches * steps
    assert engines["decode"].frames == 12


def test_files_of_another_model_are_refused_by_name(tmp_path):
    from generators.contract import GeneratorError

    generator = write_tiny(tmp_path)
    both = torch.load(tmp_path / "MimicMotion_1-1.pth", weights_only=True)
    torch.save({**both, "unet.conv_in.weight": torch.zeros(32, 4, 3, 3)}, tmp_path / "MimicMotion_1-1.pth")
    with pytest.raises(GeneratorError, match=r"conv_in.weight is \(32, 4, 3, 3\) in the file"):
        generator.build("denoise")
    torch.save({"unet.x": torch.zeros(1)}, tmp_path / "MimicMotion_1-1.pth")
    with pytest.raises(GeneratorError, match=r"has no pose_net\.\*; its names begin with unet"):
        generator.build("pose")
    assert np.isfinite(generator.noise(2, 0)).all()  # which needs no weights
