"""Low-rank adapters: files of all programs, merged as diffusers fuses them, and part of what is built."""

import json
import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from engines.artifact import Label, find_onnx, fingerprint_of, writing
from engines.cli import common_arguments, new_parser
from engines.errors import EngineError, UsageError
from engines.onnx.export import OPSET, TOOLS, identity
from generators.adapters import Lora, parse
from generators.contract import GeneratorError, load_generator
from generators.lora import METADATA, merge_all
from generators.mimicmotion.load import load_unet
from tests.tiny_mimicmotion import write_tiny
from tests.wan_checkpoints import write_checkpoint

RANK, ALPHA, SCALE = 3, 6.0, 0.5
WAN = {"blocks.0.attn1.to_q": "blocks.0.self_attn.q", "blocks.1.attn2.to_out.0": "blocks.1.cross_attn.o",
       "blocks.1.attn2.add_k_proj": "blocks.1.cross_attn.k_img", "blocks.0.ffn.net.0.proj": "blocks.0.ffn.0",
       "proj_out": "head.head", "condition_embedder.time_proj": "time_projection.1"}
AT = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET = {name: name for name in (f"{AT}.attn1.to_q", f"{AT}.attn1.to_out.0", f"{AT}.ff.net.0.proj",
                                "down_blocks.0.resnets.0.spatial_res_block.conv1", "conv_out")}
# By program: the names of down and up of a layer, and of its alpha, if there is one.
STYLES = {
    "peft": ("base_model.model.{0}.lora_A.weight", "base_model.model.{0}.lora_B.weight", None),
    "peft, named": ("pipe.dit.{1}.lora_A.default.weight", "pipe.dit.{1}.lora_B.default.weight", None),
    "diffusers": ("transformer.{0}.lora_A.weight", "transformer.{0}.lora_B.weight", None),
    "diffusers, unet": ("unet.{0}.lora.down.weight", "unet.{0}.lora.up.weight", "unet.{0}.alpha"),
    "comfyui": ("diffusion_model.{1}.lora_down.weight", "diffusion_model.{1}.lora_up.weight",
                "diffusion_model.{1}.alpha"),
    "kohya": ("lora_unet_{2}.lora_down.weight", "lora_unet_{2}.lora_up.weight", "lora_unet_{2}.alpha"),
    "kohya, by diffusers' names": ("lora_unet_{3}.lora_down.weight", "lora_unet_{3}.lora_up.weight", None),
}


def adapter_of(state, layers, style="diffusers"):
    """Random tensors for the layers in a program's style, and what they add to the weights at scale 1."""
    torch.manual_seed(7)
    down, up, alpha = STYLES[style]
    tensors, added = {}, {}
    for layer, original in layers.items():
        weight = state[f"{layer}.weight"]
        low = torch.randn(RANK, *weight.shape[1:])
        high = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2))
        names = layer, original, original.replace(".", "_"), layer.replace(".", "_")
        tensors |= {down.format(*names): low, up.format(*names): high}
        if alpha:
            tensors[alpha.format(*names)] = torch.tensor(ALPHA)
        product = high.flatten(1).double() @ low.flatten(1).double()
        added[f"{layer}.weight"] = (ALPHA / RANK if alpha else 1.0) * product.view_as(weight)
    return tensors, added


def fits(found, state, added, scale):
    """Whether all weights are the base model's with the change, to rounding, and others the very same."""
    for name, own in state.items():
        if name in added:
            wanted = own.double() + scale * added[name]
            torch.testing.assert_close(found[name].double(), wanted, rtol=1e-6, atol=2e-6 if own.dtype ==
                                       torch.float32 else 4e-3)
            assert not torch.equal(found[name], own)
        else:
            assert torch.equal(found[name], own), name


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """The name of a tiny Fun-Control, and its tensors."""
    folder = write_checkpoint(tmp_path_factory.mktemp("wan"), "wan-fun-control")
    name = f"wan-fun-control={folder}"
    return name, load_generator(name)._loaded().state_dict()


@pytest.mark.parametrize("style", [style for style in STYLES if style != "diffusers, unet"])
def test_a_file_of_any_program_is_merged_into_wan(wan, tmp_path, style):
    name, state = wan
    tensors, added = adapter_of(state, WAN, style)
    save_file(tensors, tmp_path / "style.safetensors")
    found = load_generator(f"{name},lora={tmp_path / 'style.safetensors'}:{SCALE}")._loaded().state_dict()
    fits(found, state, added, SCALE)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """The folder of a tiny MimicMotion, and its U-Net's tensors."""
    folder = write_tiny(tmp_path_factory.mktemp("mimicmotion"))._folder
    return folder, load_unet(folder).state_dict()


@pytest.mark.parametrize("style", ["peft", "diffusers, unet", "kohya"])
def test_a_file_of_any_program_is_merged_into_a_u_net_with_its_convolutions(unet, tmp_path, style):
    folder, state = unet
    tensors, added = adapter_of(state, UNET, style)
    save_file(tensors, tmp_path / "style.safetensors")
    found = load_unet(folder, [Lora(tmp_path / "style.safetensors", SCALE)]).state_dict()
    fits(found, state, added, SCALE)


def test_files_of_old_diffusers_and_whole_differences_are_merged_too(wan, tmp_path):
    name, state = wan
    low, high = torch.randn(RANK, 32), torch.randn(32, RANK)
    at = "transformer.blocks.0.attn1.processor.to_out_lora"
    save_file({f"{at}.down.weight": low, f"{at}.up.weight": high,
               "diffusion_model.blocks.1.norm3.diff": torch.ones(32),
               "diffusion_model.blocks.1.cross_attn.q.diff_b": torch.ones(32)}, tmp_path / "old.safetensors")
    found = load_generator(f"{name},lora={tmp_path / 'old.safetensors'}:2")._loaded().state_dict()
    ones = dict.fromkeys(("blocks.1.norm2.weight", "blocks.1.attn2.to_q.bias"), torch.ones(32))
    fits(found, state, {"blocks.0.attn1.to_out.0.weight": high.double() @ low.double(), **ones}, 2.0)


@pytest.mark.parametrize(("where", "pattern"), [
    ("inside", None), ("beside", "attn1.to_q"), ("beside", "self_attn.q"),
    ("beside", "^blocks.0.self_attn.q|other")])
def test_alpha_is_taken_from_a_files_metadata_or_from_the_config_beside_it(wan, tmp_path, where, pattern):
    """diffusers writes the first, peft the second; alpha_pattern and rank-stabilised adapters count."""
    name, state = wan
    style = "peft, named" if pattern and "self_attn" in pattern else "peft"  # by the original names
    tensors, added = adapter_of(state, WAN, "diffusers" if where == "inside" else style)
    tensors = {name.replace("pipe.dit.", "base_model.model."): tensor for name, tensor in tensors.items()}
    query = "blocks.0.attn1.to_q" if where == "inside" else pattern
    told = {"r": RANK, "lora_alpha": 9, "alpha_pattern": {query: 12}, "use_rslora": True}
    about = {METADATA: json.dumps({f"transformer.{key}": value for key, value in told.items()})}
    save_file(tensors, tmp_path / "adapter_model.safetensors", about if where == "inside" else None)
    if where == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    found = load_generator(f"{name},lora={tmp_path / 'adapter_model.safetensors'}")._loaded().state_dict()
    shares = {layer: (12 if "to_q" in layer else 9) / RANK**0.5 for layer in added}
    fits(found, state, {layer: shares[layer] * change for layer, change in added.items()}, 1.0)


def test_several_are_merged_one_after_the_other(wan, tmp_path):
    name, state = wan
    tensors, added = adapter_of(state, WAN)
    for number in range(2):
        save_file(tensors, tmp_path / f"{number}.safetensors")
    both = f"{name},lora={tmp_path / '0.safetensors'}:2,lora={tmp_path / '1.safetensors'}:-1.5"
    fits(load_generator(both)._loaded().state_dict(), state, added, 0.5)


def tiny_unet():
    """diffusers' U-Net, with attention, in small; MimicMotion's own has no loader there."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), block_out_channels=(32,), layers_per_block=1,
        cross_attention_dim=16, attention_head_dim=8)


@pytest.mark.parametrize("kind", ["wan", "unet"])
def test_merged_weights_are_those_that_diffusers_fuses(wan, tmp_path, kind):
    pytest.importorskip("peft")
    layers = WAN if kind == "wan" else [f"{AT}.attn1.to_q", f"{AT}.attn2.to_out.0", "conv_out"]
    network = load_generator(wan[0])._loaded() if kind == "wan" else tiny_unet()
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    path = tmp_path / "style.safetensors"
    save_file(adapter_of(state, dict.fromkeys(layers, ""))[0], path)
    network.load_lora_adapter(path.parent, weight_name=path.name, prefix="transformer")
    network.fuse_lora(SCALE)
    network.unload_lora()
    ours = merge_all(state, [Lora(path, SCALE)])
    for key, wanted in network.state_dict().items():
        torch.testing.assert_close(ours[key], wanted, rtol=1e-6, atol=2e-6)


def changed(tensors, **more):
    """A file's tensors with other ones: None drops one."""
    return {name: tensor for name, tensor in {**tensors, **more}.items() if tensor is not None}


def test_what_does_not_fit_is_refused_with_a_list(wan, tmp_path):
    name, state = wan
    tensors, _ = adapter_of(state, WAN)
    path, query = tmp_path / "style.safetensors", "transformer.blocks.0.attn1.to_q"
    for others, said in (
        ({f"text_encoder.layers.{n}.lora_A.weight": torch.zeros(2, 2) for n in range(12)},
         r"12 tensors that fit no layer:\n  text_encoder.layers.0.lora_A.weight\n(.*\n)*  and 2 more"),
        ({f"{query}.dora_scale": torch.zeros(32)}, r"1 tensors that fit no layer:\n  .*to_q.dora_scale"),
        ({f"{query}.lora_B.weight": None}, r"blocks.0.attn1.to_q: has down, where a pair"),
        ({f"{query}.lora_A.weight": torch.zeros(3, 24)},
         r"1 layers that do not fit:\n.*attn1.to_q: \(32, 3\) by \(3, 24\) is no change of \(32, 32\)"),
        ({f"{query}.lora_B.weight": torch.tensor(1.0)}, r"attn1.to_q: \(\) by \(3, 32\) are no two matrices"),
        ({f"{query}.lora_A.weight": torch.tensor(1.0)}, r"attn1.to_q: \(32, 3\) by \(\) are no two matrices"),
        ({f"{query}.lora_A.weight": torch.zeros(0, 32), f"{query}.lora_B.weight": torch.zeros(32, 0)},
         r"\(32, 0\) by \(0, 32\) are no two"),
        ({f"{query}.alpha": torch.ones(2)}, r"attn1.to_q: alpha is \(2,\), where one number belongs"),
        ({"pipe.blocks.0.self_attn.q.lora_A.weight": torch.zeros(3, 32)},
         r"1 tensors of a layer that has such a one already:\n  transformer.blocks.0.attn1.to_q.lora_A"),
        ({f"{query}.diff_b": torch.zeros(5)}, r"diff_b is \(5,\), the network has \(32,\)"),
    ):
        save_file(changed(tensors, **others), path)
        with pytest.raises(GeneratorError, match=said) as error:
            load_generator(f"{name},lora={path}").build("denoise")
        assert f"{path} is no LoRA of this network" in str(error.value)
    with pytest.raises(GeneratorError, match="no checkpoint at .*none.safetensors"):
        load_generator(f"{name},lora={tmp_path / 'none.safetensors'}").build("denoise")
    save_file(tensors, path, {METADATA: "{}"})
    with pytest.raises(GeneratorError, match="does not tell the LoRA's alpha"):
        load_generator(f"{name},lora={path}").build("denoise")


def test_a_file_of_several_adapters_is_refused_by_their_names(tmp_path):
    halves = {"A": torch.ones(2, 8), "B": torch.ones(8, 2)}
    save_file({f"q.lora_{half}.{name}.weight": tensor.clone() for half, tensor in halves.items()
               for name in ("one", "two")}, tmp_path / "a.safetensors")
    state = {"q.weight": torch.zeros(8, 8)}
    with pytest.raises(GeneratorError, match="holds several adapters: one, two; save each to a file"):
        merge_all(state, [Lora(tmp_path / "a.safetensors")])
    assert not state["q.weight"].any()


@pytest.mark.parametrize(("text", "path", "scale"), [
    ("a.safetensors", "a.safetensors", 1.0), ("a.safetensors:0.8", "a.safetensors", 0.8),
    ("/x:y/a.safetensors", "/x:y/a.safetensors", 1.0), ("a:-2e-1", "a", -0.2)])
def test_a_file_may_have_a_scale(text, path, scale):
    found = parse(text)
    assert (str(found.path), found.scale) == (path, scale)


@pytest.mark.parametrize("text", ["", ":0.5", "a:nan", "a:0", "a:inf"])
def test_no_file_or_no_scale_is_refused(text):
    with pytest.raises(UsageError, match="give FILE or FILE:SCALE"):
        parse(text)


def test_the_option_goes_with_the_generators_name(capsys):
    parser = new_parser(None)
    common_arguments(parser, "generator")
    args = parser.parse_args(["--lora", "a.safetensors:0.5", "--generator", "wan-animate=F", "--lora", "b"])
    assert args.generator == "wan-animate=F,lora=a.safetensors:0.5,lora=b"
    assert parser.parse_args([]).generator == "presenter"
    parser.set_defaults(generator=None)
    with pytest.raises(SystemExit):
        parser.parse_args(["--lora", "a"])
    assert "--lora goes with --generator" in capsys.readouterr().err


def test_a_class_of_ones_own_gets_adapters_or_says_that_it_takes_none(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    pass\n")
    with pytest.raises(UsageError, match="Mine takes no LoRA: give its __init__ a parameter loras"):
        load_generator(f"{file}:Mine,lora=a.safetensors")
    file.write_text("from generators.presenter.generator import Presenter as Mine\n")
    assert load_generator(f"{file}:Mine,lora=a.safetensors").loras == {"denoise": ["a.safetensors:1"]}


def built(generator, component, folder):
    """Write what stands for a graph of the component with the manifest that an export gives it."""
    about = identity(generator, component, "fp32", OPSET, TOOLS)
    with writing(folder, Label(component, "fp32", ".onnx"), about) as draft:
        draft.path.write_bytes(b"graph")


def test_a_graph_without_the_adapter_is_stale_by_its_name_and_others_are_kept(wan, tmp_path):
    name, state = wan
    save_file(adapter_of(state, WAN)[0], tmp_path / "style.safetensors")
    plain = load_generator(name)
    adapted, more = (load_generator(f"{name},lora={tmp_path / 'style.safetensors'}:{s}") for s in (0.5, 0.75))
    for component in ("denoise", "decode_first"):
        built(plain, component, tmp_path)
    with pytest.raises(EngineError, match=re.escape(
            'does not fit: loras was null when it was built, is ["style.safetensors:0.5"] here')):
        find_onnx(tmp_path, adapted, "denoise", "fp32")
    built(adapted, "denoise", tmp_path)
    assert find_onnx(tmp_path, adapted, "denoise", "fp32").manifest["built_from"]["loras"]
    assert find_onnx(tmp_path, plain, "denoise", "fp32").manifest["built_from"]["loras"] is None
    with pytest.raises(EngineError, match=re.escape('"style.safetensors:0.5"')):
        find_onnx(tmp_path, more, "denoise", "fp32")
    find_onnx(tmp_path, adapted, "decode_first", "fp32")  # it has no weight that the adapter changes
    own, other = ({part: fingerprint_of(each, part) for part in each.components} for each in (plain, adapted))
    assert {part for part in own if own[part] != other[part]} == {"image_kv", "denoise"}
