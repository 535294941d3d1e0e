"""Frames of the Wan generators beside those of diffusers' own pipelines: same weights, same noise."""

import sys
import types

import diffusers.loaders
import numpy as np
import pytest
import torch
from PIL import Image

from bench.frame_metrics import psnr
from engines.backends.torch_backend import TorchEngine
from generators.contract import load_generator
from generators.resize import contain
from generators.wan import load
from pipeline.sampler import generate
from tests.wan_checkpoints import network_of, save, write_checkpoint

CLOSE = 50  # dB over all pixels, in float32
SEED = 5


@pytest.fixture(scope="module")
def pipelines():
    """diffusers' pipelines, imported with stand-ins for the text encoders that no test asks for."""
    patch = pytest.MonkeyPatch()
    transformers = types.ModuleType("transformers")
    for name in ("AutoTokenizer", "CLIPImageProcessor", "CLIPVisionModel", "UMT5EncoderModel"):
        setattr(transformers, name, type(name, (), {}))
    patch.setitem(sys.modules, "transformers", transformers)
    patch.setattr(diffusers.loaders, "WanLoraLoaderMixin", type("WanLoraLoaderMixin", (), {}), raising=False)
    from diffusers.pipelines.wan import pipeline_wan_animate, pipeline_wan_i2v

    yield pipeline_wan_animate.WanAnimatePipeline, pipeline_wan_i2v.WanImageToVideoPipeline
    patch.undo()


class Look(torch.nn.Module):
    """Stands for transformers' image processor and encoder in a pipeline; computes the same as `image_kv`."""

    device = torch.device("cpu")

    def __init__(self, generator):
        super().__init__()
        self.clip = load.load_clip(generator.clip, generator.files)

    def forward(self, images=None, return_tensors=None, pixels=None, output_hidden_states=None):
        if images is not None:
            return Arguments(pixels=np.asarray(images))
        from generators.clip.vision import normalise
        from generators.wan.conditioning import centred

        side = self.clip.size.image_size
        picture = centred(torch.from_numpy(pixels[None]), 127.5, 1.0)
        picture = torch.nn.functional.interpolate(picture, (side, side), mode="bicubic")
        return types.SimpleNamespace(hidden_states=[self.clip.hidden(normalise(picture)), None])


class Arguments(dict):
    def to(self, device):
        return self


def run(generator, skeletons, image):
    engines = {name: TorchEngine(spec, generator.build(name)) for name, spec in generator.components.items()}
    return generate(generator, engines, skeletons, image, SEED)


def drawn(frames):
    """Skeletons and a picture of coloured blocks, (F, 48, 32, 3) and (48, 32, 3) uint8."""
    random = np.random.default_rng(2)
    blocks = random.integers(0, 256, (frames + 1, 6, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return blocks[1:], blocks[0]


def settings_of(sampler, shift):
    if sampler == "unipc-diffusers":
        options = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        return diffusers.UniPCMultistepScheduler(**options)
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)


def pictures(frames):
    return [Image.fromarray(frame) for frame in frames]


def levels(result):
    return (result.frames[0] * 255).round()


@pytest.mark.parametrize("sampler", ["unipc-diffusers", "flow-diffusers"])
@pytest.mark.parametrize(
    ("frames", "keep", "guidance"), [(9, 1, 1.0), (17, 1, 2.0), (40, 1, 1.0), (40, 5, 1.0)])
def test_animate_shows_what_diffusers_pipeline_shows(pipelines, tmp_path, sampler, frames, keep, guidance):
    folder = write_checkpoint(
        tmp_path, "wan-animate", sampler=sampler, keep=keep, guidance=guidance, steps=3, shift=5.0)
    generator = load_generator(f"wan-animate={folder}")
    generator.truncate = False  # the pipeline rounds
    look, (skeletons, image) = Look(generator), drawn(frames)
    pipeline = pipelines[0](
        None, None, load.load_vae(generator.vae, generator.files), settings_of(sampler, 5.0), look, look,
        generator._loaded())
    pipeline.set_progress_bar_config(disable=True)
    prompts = load.load_prompts(generator.files, True)
    face = np.zeros((frames, 16, 16, 3), np.uint8)
    wanted = pipeline(
        Image.fromarray(image), pictures(skeletons), pictures(face), height=48, width=32,
        segment_frame_length=17, num_inference_steps=3, prev_segment_conditioning_frames=keep,
        guidance_scale=guidance, generator=torch.Generator().manual_seed(SEED),
        prompt_embeds=prompts[1:], negative_prompt_embeds=prompts[:1])
    error = run(generator, skeletons, image) - levels(wanted)
    assert psnr(error) >= CLOSE


@pytest.mark.parametrize("size", [(1366, 768), (123, 457), (97, 64), (32, 48)])
def test_a_picture_is_contained_as_in_diffusers_pipeline_of_animate(size):
    from diffusers.pipelines.wan.image_processor import WanAnimateImageProcessor

    pixels = np.random.default_rng(0).integers(0, 256, (1, *size[::-1], 3), np.uint8)
    wanted = WanAnimateImageProcessor()._resize_and_fill(Image.fromarray(pixels[0]), 32, 48)
    assert np.array_equal(contain(pixels, 32, 48)[0], np.asarray(wanted))


def silenced(folder):
    """The checkpoint of UniAnimate without its adapter, its pose networks giving zero: the base model."""
    state = network_of("wan-unianimate").state_dict()
    poses = {name: each for name, each in state.items() if "dwpose_" in name or "embedding_pose." in name}
    for name in poses:
        if name.startswith(("dwpose_embedding.12.", "randomref_embedding_pose.10.")):
            poses[name].zero_()
    save(poses, folder / "adapter.safetensors")
    return folder


@pytest.mark.parametrize(("sampler", "frames"), [("unipc-diffusers", 17), ("flow-diffusers", 9)])
def test_unianimate_without_a_pose_shows_what_its_base_models_pipeline_shows(
        pipelines, tmp_path, sampler, frames):
    folder = silenced(write_checkpoint(tmp_path, "wan-unianimate", sampler=sampler, steps=3, guidance=1.5))
    generator = load_generator(f"wan-unianimate={folder}")
    generator.truncate = False  # the pipeline rounds
    look, (skeletons, image) = Look(generator), drawn(frames)
    vae, network = load.load_vae(generator.vae, generator.files), generator._loaded()
    pipeline = pipelines[1](None, None, vae, settings_of(sampler, 5.0), look, look, network)
    pipeline.set_progress_bar_config(disable=True)
    prompts = load.load_prompts(generator.files, True)
    wanted = pipeline(
        Image.fromarray(image), height=48, width=32, num_frames=17, num_inference_steps=3, guidance_scale=1.5,
        generator=torch.Generator().manual_seed(SEED), prompt_embeds=prompts[1:],
        negative_prompt_embeds=prompts[:1])
    assert psnr(run(generator, skeletons, image) - levels(wanted)[:frames]) >= CLOSE
