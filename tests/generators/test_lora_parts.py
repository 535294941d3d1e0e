"""What of an adapter's file goes into a network: without its text encoder's part where no text is read."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file

from generators.adapters import Lora
from generators.contract import GeneratorError
from generators.lora import METADATA, merge_all
from generators.mimicmotion.load import load_unet
from generators.refnet.load import load_denoiser
from tests.tiny_mimicmotion import write_tiny
from tests.tiny_refnet import write_tiny as write_refnet

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
# How programs name the parts of a file that they trained with the text encoder.
NAMES = {
    "kohya": ("lora_unet_" + QUERY.replace(".", "_") + ".lora_{}.weight",
              "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_{}.weight"),
    "kohya, of two": ("lora_unet_" + QUERY.replace(".", "_") + ".lora_{}.weight",
                      "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_{}.weight"),
    "diffusers": (f"unet.{QUERY}.lora.{{}}.weight", "text_encoder.text_model.layers.0.fc1.lora.{}.weight"),
}


def write(path, style, size, metadata=None):
    """A file that adds 2 to all of the query's weights, and changes a text encoder."""
    unet, text = NAMES[style]
    parts = {"down": torch.ones(2, size), "up": torch.ones(size, 2)}
    named = {name.format(side): tensor.clone() for name in (unet, text) for side, tensor in parts.items()}
    save_file(named, path, metadata)
    return Lora(path)


@pytest.mark.parametrize("style", NAMES)
def test_a_network_without_text_takes_its_part_of_the_file_and_says_what_is_left_out(tmp_path, style):
    lora = write(tmp_path / "style.safetensors", style, 8)
    said = "style.safetensors': 2 tensors of a text encoder are left out: this network reads no text"
    with pytest.warns(UserWarning, match=said):
        found = merge_all({f"{QUERY}.weight": torch.zeros(8, 8)}, [lora], reads_text=False)
    assert torch.equal(found[f"{QUERY}.weight"], torch.full((8, 8), 2.0))
    with pytest.raises(GeneratorError, match="2 tensors that fit no layer:\n  .*te"):
        merge_all({f"{QUERY}.weight": torch.zeros(8, 8)}, [lora])


def test_a_file_of_a_text_encoder_alone_is_refused_and_one_without_is_merged_in_silence(tmp_path):
    path, tensors = tmp_path / "a.safetensors", {f"a.lora_{side}.weight": torch.ones(8, 8) for side in "AB"}
    save_file({f"text_encoder.{name}": tensor for name, tensor in tensors.items()}, path)
    with pytest.raises(GeneratorError, match="2 tensors that fit no layer"):
        merge_all({"a.weight": torch.zeros(8, 8)}, [Lora(path)], reads_text=False)
    save_file(tensors, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = merge_all({"a.weight": torch.zeros(8, 8)}, [Lora(path)], reads_text=False)
    assert torch.equal(found["a.weight"], torch.full((8, 8), 8.0))


def test_the_alpha_of_the_text_encoder_is_not_the_networks(tmp_path):
    told = {"unet.lora_alpha": 1, "text_encoder.lora_alpha": 64}
    lora = write(tmp_path / "style.safetensors", "diffusers", 8, {METADATA: json.dumps(told)})
    with pytest.warns(UserWarning):
        found = merge_all({f"{QUERY}.weight": torch.zeros(8, 8)}, [lora], reads_text=False)
    assert torch.equal(found[f"{QUERY}.weight"], torch.ones(8, 8))  # alpha / rank * 2


@pytest.mark.parametrize("family", ["refnet", "mimicmotion"])
def test_the_families_without_text_take_such_files(tmp_path, family):
    writer, load = {"refnet": (write_refnet, load_denoiser), "mimicmotion": (write_tiny, load_unet)}[family]
    folder = writer(tmp_path)._folder
    weight = f"{QUERY}.weight"
    before = load(folder).state_dict()[weight].clone()
    lora = write(tmp_path / "style.safetensors", "kohya", len(before))
    with pytest.warns(UserWarning, match="text encoder are left out"):
        after = load(folder, [lora]).state_dict()[weight]
    torch.testing.assert_close(after.float(), (before.float() + 2).to(before.dtype).float())


def test_what_is_merged_into_weights_in_eight_bits_is_not_lost(tmp_path):
    weight = torch.full((8, 8), 1.0).to(torch.float8_e4m3fn)
    lora = Lora(write(tmp_path / "a.safetensors", "kohya", 8).path, 0.01)  # less than eight bits can tell
    with pytest.warns(UserWarning):
        found = merge_all({f"{QUERY}.weight": weight}, [lora], reads_text=False)[f"{QUERY}.weight"]
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), torch.tensor(1.02), atol=4e-3)
