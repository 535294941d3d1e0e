"""Names, shapes and sizes of the published Wan networks, nothing allocated; what does not fit is named."""

import hashlib
import json
import re

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

from generators.checkpoint import fill
from generators.clip.size import ClipSize
from generators.clip.vision import ClipVision, from_open_clip
from generators.contract import GeneratorError, load_generator
from generators.wan import load
from generators.wan.config import AnimateSize, TransformerSize, VaeSize
from generators.wan.vae import autoencoder
from tests.wan_checkpoints import CLIP, save, write_checkpoint, write_settings
from tests.wan_reference import linear, random_state

SMALL = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
DIMS = {1536: {"ffn": 8960, "layers": 30}, 5120: {"ffn": 13824, "layers": 40}}
WIDE = {"text": 4096, "waves": 256, "picture": 1280}
# MD5 over names and shapes of the published files, by which DiffSynth-Studio knows them.
PUBLISHED = [
    (1536, 48, load.fun_control_network, TransformerSize(in_channels=48, **SMALL),
     "70ddad9d3a133785da5ea371aae09504", 1_564_602_176),
    (5120, 48, load.fun_control_network, TransformerSize(in_channels=48),
     "26bde73488a92e64cc20b0a7485b9e5b", 16_395_457_344),
    (5120, 36, load.transformer, TransformerSize(), "6bfcfb3b342cb286ce886889d519a77e", 16_394_878_784),
]


@pytest.fixture
def meta():
    """Everything that is made has a shape and no numbers."""
    with torch.device("meta"):
        yield


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def parameters(network):
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize(("dim", "channels", "make", "size", "published", "count"), PUBLISHED)
def test_names_and_shapes_of_1_3b_and_14b_are_the_published_ones(
        meta, dim, channels, make, size, published, count):
    original = random_state(dim=dim, channels=channels, **DIMS[dim], **WIDE)
    if channels == 48:
        original |= {"ref_conv.weight": torch.empty(dim, 16, 2, 2), "ref_conv.bias": torch.empty(dim)}
    listed = [f"{name}:{'_'.join(map(str, tensor.shape))}" for name, tensor in original.items()] + [*original]
    assert hashlib.md5(",".join(sorted(listed)).encode()).hexdigest() == published
    network = make(size)
    assert shapes(network.state_dict()) == shapes(convert_wan_transformer_to_diffusers(dict(original)))
    assert parameters(network) == count == sum(tensor.numel() for tensor in original.values())


def animate_state():
    """Names and shapes of what Wan2.2-Animate has beside the base model, with none of diffusers' renaming."""
    widths = [32, 64, 128, 256, 512, 512, 512, 512]
    at, face = "motion_encoder.enc.net_app.convs", "face_encoder"
    found = {f"{at}.0.0.weight": (32, 3, 1, 1), f"{at}.0.1.bias": (1, 32, 1, 1),
             f"{at}.8.weight": (512, 512, 4, 4), "motion_encoder.dec.direction.weight": (512, 20),
             "pose_patch_embedding.weight": (5120, 16, 1, 2, 2), "pose_patch_embedding.bias": (5120,),
             f"{face}.padding_tokens": (1, 1, 1, 5120), **linear(f"{face}.out_proj", 1024, 5120)}
    for number, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
        found |= {f"{at}.{number}.{name}": shape for name, shape in (
            ("conv1.0.weight", (before, before, 3, 3)), ("conv1.1.bias", (1, before, 1, 1)),
            ("conv2.0.kernel", (4, 4)), ("conv2.1.weight", (after, before, 3, 3)),
            ("conv2.2.bias", (1, after, 1, 1)), ("skip.0.kernel", (4, 4)),
            ("skip.1.weight", (after, before, 1, 1)))}
    for number in range(5):
        found |= linear(f"motion_encoder.enc.fc.{number}", 512, 20 if number == 4 else 512)
    for name, before, after in (("conv1_local", 512, 4096), ("conv2", 1024, 1024), ("conv3", 1024, 1024)):
        found |= {f"{face}.{name}.conv.weight": (after, before, 3), f"{face}.{name}.conv.bias": (after,)}
    for number in range(8):
        fuser = f"face_adapter.fuser_blocks.{number}"
        found |= linear(f"{fuser}.linear1_kv", 5120, 10240) | linear(f"{fuser}.linear1_q", 5120, 5120)
        found |= linear(f"{fuser}.linear2", 5120, 5120)
        found |= {f"{fuser}.q_norm.weight": (128,), f"{fuser}.k_norm.weight": (128,)}
    return {name: torch.empty(shape) for name, shape in found.items()}


def test_the_published_file_of_animate_fills_its_network(meta):
    """Its names and shapes are those of Wan2.2's own class (42bf4cf), and of the file by DiffSynth's MD5.

    Of the file's 1,441 tensors 14 are kernels that blur, buffers of that class and constants of diffusers'.
    """
    original = random_state(dim=5120, channels=36, **DIMS[5120], **WIDE) | animate_state()
    listed = [f"{name}:{'_'.join(map(str, tensor.shape))}" for name, tensor in original.items()] + [*original]
    assert hashlib.md5(",".join(sorted(listed)).encode()).hexdigest() == "31fa352acb8a1b1d33cd8764273d80a2"
    assert len(original) == 1441
    network, tensors = load.animate_network(AnimateSize()), convert_wan_transformer_to_diffusers(original)
    fill(network, tensors, "the file", ignored=load.UNUSED)
    tensors["other.kernel"] = tensors.pop("motion_encoder.res_blocks.0.conv_skip.weight")
    with pytest.raises(GeneratorError, match=r"1 missing:\n.*conv_skip.weight\n1 unexpected:\n  other"):
        fill(network, tensors, "the file", ignored=load.UNUSED)


def test_the_base_models_have_the_published_numbers_of_parameters(meta):
    """Without the picture's part they are the text-to-video models, whose counts their cards give."""
    for size, count in ((TransformerSize(in_channels=16, **SMALL), 1_418_996_800),
                        (TransformerSize(in_channels=16), 14_288_491_584)):
        network = load.transformer(size)
        pictured = re.compile(r"image_embedder|add_k_proj|add_v_proj|norm_added_k")
        named = [each.numel() for name, each in network.named_parameters() if not pictured.search(name)]
        assert sum(named) == count


def test_animate_has_the_published_size_and_the_autoencoder_its_number_of_parameters(meta):
    assert round(2 * parameters(load.animate_network(AnimateSize())) / 1e9, 2) == 34.55  # GB in bfloat16
    vae = autoencoder(VaeSize())
    assert (parameters(vae), len(vae.state_dict())) == (126_892_531, 194)
    assert parameters(ClipVision(ClipSize(projection_dim=1024))) == 632_076_800  # OpenCLIP's ViT-H/14


def test_clip_in_wans_own_file_is_the_same_network():
    torch.manual_seed(0)
    network = ClipVision(CLIP)
    layers = "vision_model.encoder.layers."
    original = {}
    for name, tensor in network.state_dict().items():
        name = name.replace(layers, "visual.transformer.").replace("vision_model.", "visual.")
        for old, new in (("embeddings.patch_embedding", "patch_embedding"), ("layer_norm", "norm"),
                         ("embeddings.class_embedding", "cls_embedding"), ("self_attn.out_proj", "attn.proj"),
                         ("embeddings.position_embedding.weight", "pos_embedding"), ("mlp.fc1", "mlp.0"),
                         ("pre_layrnorm", "pre_norm"), ("post_layernorm", "post_norm"), ("mlp.fc2", "mlp.2")):
            name = name.replace(old, new)
        original[name] = tensor
    for layer in range(CLIP.num_hidden_layers):
        at = f"visual.transformer.{layer}"
        for kind in ("weight", "bias"):
            parts = [original.pop(f"{at}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            original[f"{at}.attn.to_qkv.{kind}"] = torch.cat(parts)
    original["visual.cls_embedding"] = original["visual.cls_embedding"].view(1, 1, -1)
    original["visual.pos_embedding"] = original["visual.pos_embedding"][None]
    other = {"visual.head": torch.zeros(1), "textual.token_embedding.weight": torch.zeros(1), "log_scale": 0}
    found = from_open_clip(original | other)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found.pop(name), tensor)
    assert found == {}


def refusal(folder, name="wan-fun-control", component=None):
    with pytest.raises(GeneratorError) as error:
        generator = load_generator(f"{name}={folder}")
        generator.build(component)
    return str(error.value)


@pytest.fixture
def folder(tmp_path):
    """A tiny checkpoint of Fun-Control."""
    return write_checkpoint(tmp_path, "wan-fun-control")


def change_config(folder, part="transformer", **values):
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_network_of_another_width_is_refused_with_shapes_of_both(folder):
    change_config(folder, num_attention_heads=3)
    said = refusal(folder, component="denoise")
    assert re.search(r"size of the model\?\n\d+ of another shape:\n  .* is \(.*32.*\) in the file, "
                     r"\(.*48.*\) in the network", said)


def test_a_network_of_another_conditioner_is_refused(folder):
    assert "is no wan-animate: its network takes 48 channels, expected 36" in refusal(folder, "wan-animate")
    (folder / "adapter.safetensors").write_bytes((folder / "prompt.safetensors").read_bytes())
    change_config(folder, in_channels=36)
    said = refusal(folder, "wan-unianimate", "denoise")
    assert "adapter.safetensors is no LoRA of this network" in said and "2 tensors that fit no layer:" in said


@pytest.mark.parametrize(("part", "values", "reason"), [
    ("transformer", {"num_layers": "two"}, "num_layers must be like 40, is 'two'"),
    ("transformer", {"image_dim": None}, "this network takes no picture"),
    ("transformer", {"out_channels": 32}, "32 channels are not the autoencoder's 16"),
    ("vae", {"is_residual": True}, "the autoencoder of Wan 2.2's 5B model is not known here"),
])
def test_a_config_that_cannot_be_is_refused_with_its_place(folder, part, values, reason):
    change_config(folder, part, **values)
    assert reason in refusal(folder)


@pytest.mark.parametrize(("settings", "reason"), [
    ({"width": 100}, "width: must be a multiple of 16, is 100; the nearest is 96"),
    ({"frames": 80}, "frames: must be 1 more than a multiple of 4, is 80; the nearest is 81"),
    ({"frames": "81"}, "frames: must be like 81, is '81'"),
    ({"overlap": 5}, "0 <= overlap < length, got overlap 5 of 5"),
    ({"sampler": "unipx"}, "unknown sampler 'unipx'; did you mean 'unipc'?"),
    ({"guidence": 1.0}, "unknown setting 'guidence'; did you mean 'guidance'?"),
    ({"steps": 0}, "a grid needs steps >= 1"),
])
def test_a_setting_that_cannot_be_is_refused_with_its_file(folder, settings, reason):
    write_settings(folder, **settings)
    assert reason in refusal(folder)


def test_a_missing_part_is_named(folder, tmp_path):
    assert f"no folder {tmp_path / 'none'}" in refusal(tmp_path / "none")
    save({"prompt": torch.zeros(512, 16)}, folder / "prompt.safetensors")
    assert "prompt.safetensors lacks negative; it has prompt" in refusal(folder, component="denoise")
    save({name: torch.zeros(512, 24) for name in ("prompt", "negative")}, folder / "prompt.safetensors")
    assert "embeddings of width 24, the network takes 16" in refusal(folder, component="denoise")
    (folder / "transformer" / "config.json").unlink()
    assert "has neither transformer/config.json nor config.json" in refusal(folder)
