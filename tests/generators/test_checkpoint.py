"""Checkpoints of every form fill a network exactly; whatever does not fit is named, and so is what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from generators.checkpoint import DTYPES, fill, open_checkpoint, weightless
from generators.contract import GeneratorError
from generators.families import FAMILIES, family

ROOT = Path(__file__).parents[2]


class Network(nn.Module):
    """Two linear layers, a parameter of its own, a table that no checkpoint holds."""

    def __init__(self, width=6):
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 4)
        self.scale = nn.Parameter(torch.randn(1, width))
        self.register_buffer("table", torch.arange(width).float(), persistent=False)

    def forward(self, x):
        return self.second(self.first(x) * self.scale + self.table)


def filled(path, **options):
    with weightless():
        network = Network()
    checkpoint = open_checkpoint(path)
    return fill(network, checkpoint.tensors(), checkpoint.path, **options)


def wan(width=24):
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=width, in_channels=4, out_channels=4, text_dim=8,
        freq_dim=8, ffn_dim=16, num_layers=1)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return Network()


@pytest.fixture
def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def save_shards(folder, weights, suffix=".safetensors", index=True):
    """Each tensor in a shard of its own, and the index of them."""
    folder.mkdir(exist_ok=True)
    names = {name: f"model-{n:05}-of-{len(weights):05}{suffix}" for n, name in enumerate(weights, 1)}
    for name, file in names.items():
        save = save_file if suffix == ".safetensors" else torch.save
        save({name: weights[name]}, folder / file)
    if index:
        (folder / f"model{suffix}.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.ckpt", "w.bin", "old.pt", "inside.pt"])
def test_a_single_file_of_any_kind_fills_the_network(tmp_path, network, weights, name):
    path = tmp_path / name
    if name == "w.safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if name == "inside.pt" else weights, path,
                   _use_new_zipfile_serialization=name != "old.pt")
    x = torch.randn(2, 4)
    assert torch.equal(filled(path)(x), network(x))
    assert torch.equal(filled(tmp_path)(x), network(x))  # the folder's only checkpoint


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("index", [True, False])
def test_shards_fill_the_network_by_index_or_by_numbers(tmp_path, network, weights, suffix, index):
    folder, x = save_shards(tmp_path / "w", weights, suffix, index), torch.randn(2, 4)
    assert torch.equal(filled(folder)(x), network(x))
    assert torch.equal(filled(min(folder.glob(f"*{suffix}")))(x), network(x))  # one shard names them all
    if index:
        assert torch.equal(filled(next(folder.glob("*.index.json")))(x), network(x))


def test_a_network_built_weightless_has_buffers_but_no_numbers_until_it_is_filled(tmp_path, weights):
    with weightless():
        network = Network()
    assert all(parameter.is_meta for parameter in network.parameters())
    assert torch.equal(network.table, torch.arange(6).float())
    save_file(weights, tmp_path / "w.safetensors")
    fill(network, open_checkpoint(tmp_path).tensors(), tmp_path)
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in network.parameters())
    assert not network.training
    assert not nn.Linear(2, 2).weight.is_meta  # only inside


def test_weights_keep_the_files_dtype_unless_another_is_asked_for(tmp_path, weights):
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, tmp_path / "w.safetensors")
    assert filled(tmp_path).scale.dtype == torch.bfloat16
    assert filled(tmp_path, dtype=torch.float32).scale.dtype == torch.float32


MAPPED = """
import sys
from pathlib import Path
from generators.checkpoint import open_checkpoint

def resident():  # MiB
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) >> 10

small, *files = map(Path, sys.argv[1:])
open_checkpoint(small).tensors()  # imports
before = resident()
mapped = [tensor for file in files for tensor in open_checkpoint(file).tensors().values()]
opened = resident() - before
assert sum(int(tensor.sum()) for tensor in mapped) == 128 << 20
used = resident() - before
del mapped
print(opened, used, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_tensors_are_mapped_read_when_they_are_used_and_freed_again(tmp_path):
    files = [tmp_path / name for name in ("small.safetensors", "w.safetensors", "w.pt")]
    save_file({"a": torch.ones(2)}, files[0])
    save_file({"a": torch.ones(64 << 20, dtype=torch.uint8)}, files[1])
    torch.save({"a": torch.ones(64 << 20, dtype=torch.uint8)}, files[2])
    answer = subprocess.run([sys.executable, "-c", MAPPED, *map(str, files)], cwd=ROOT, capture_output=True,
                            text=True)
    assert answer.returncode == 0, answer.stderr
    opened, used, freed = map(int, answer.stdout.split())
    assert opened < 16 and used > 100 and freed < 32


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_larger_than_this_machines_memory_is_mapped(tmp_path):
    lines = Path("/proc/meminfo").read_text().splitlines()
    size = sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("MemTotal", "SwapTotal")))
    size += 1 << 30
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (tmp_path / "w.safetensors").open("wb") as file:  # a hole, which takes no disk
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    tensor = open_checkpoint(tmp_path).tensors()["a"]
    assert tensor.shape == (size,) and tensor[-1] == 0
    tensor[-1] = 1  # stays here
    assert open_checkpoint(tmp_path).tensors()["a"][-1] == 0


@pytest.mark.parametrize("dtype", sorted(DTYPES.values()))
def test_every_dtype_and_shape_is_read_as_the_package_reads_it(tmp_path, dtype):
    numbers = torch.arange(12).view(3, 4).to(getattr(torch, dtype))
    tensors = {"plane": numbers, "scalar": numbers[1, 1].clone(), "none": numbers[:0].clone()}
    save_file(tensors, tmp_path / "w.safetensors")
    found, wanted = open_checkpoint(tmp_path).tensors(), load_file(tmp_path / "w.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in found.items()} == {
        name: (t.dtype, t.shape) for name, t in wanted.items()}
    assert all(torch.equal(found[name].float(), tensor.float()) for name, tensor in wanted.items())


@pytest.mark.parametrize(("entry", "reason"), [
    ({"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}, "a is of dtype F4; known: BOOL"),
    ({"dtype": "F16", "shape": [4], "data_offsets": [0, 2]}, "damaged at a")])
def test_a_tensor_that_cannot_be_is_named(tmp_path, entry, reason):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12")
    with pytest.raises(GeneratorError, match=reason):
        open_checkpoint(tmp_path).tensors()


def test_renames_apply_in_turn_and_a_part_is_cut_out_by_its_prefix(tmp_path, weights):
    save_file({f"net.{name.replace('first', 'blocks.0')}": t for name, t in weights.items()}
              | {"other.x": torch.ones(1)}, tmp_path / "w.safetensors")
    renames = [(r"^blocks\.0\.", "layer."), ("layer", "first")]
    checkpoint = open_checkpoint(tmp_path).part("net.").renamed(renames)
    assert {name: t.tolist() for name, t in checkpoint.tensors().items()} == {
        name: t.tolist() for name, t in weights.items()}
    assert list(checkpoint.tensors(["scale", "first.bias"])) == ["scale", "first.bias"]
    with pytest.raises(GeneratorError, match=r"has no unet\.\*; its names begin with net, other"):
        open_checkpoint(tmp_path).part("unet.")
    with pytest.raises(GeneratorError, match="are both called x"):
        open_checkpoint(tmp_path).renamed([(".*", "x")])


def test_missing_and_unexpected_tensors_are_listed_ten_of_each_with_their_count(tmp_path, weights):
    del weights["scale"]
    save_file(weights | {f"extra.{n}": torch.ones(1) for n in range(12)}, tmp_path / "w.safetensors")
    with pytest.raises(GeneratorError) as error:
        filled(tmp_path)
    text = str(error.value)
    assert text.startswith(f"{tmp_path} does not fit Network\n1 missing:\n  scale\n12 unexpected:\n")
    assert text.count("extra.") == 10 and text.endswith("  and 2 more")


def test_tensors_that_may_be_ignored_are(tmp_path, network, weights):
    save_file(weights | {"extra.position_ids": torch.ones(1)}, tmp_path / "w.safetensors")
    assert torch.equal(filled(tmp_path, ignored=[r"position_ids$"]).scale, network.scale)


def test_a_mismatched_width_names_both_shapes(tmp_path):
    save_file({k: v.contiguous() for k, v in wan(width=36).state_dict().items()}, tmp_path / "w.safetensors")
    with weightless():
        network = wan(width=24)
    with pytest.raises(GeneratorError) as error:
        fill(network, open_checkpoint(tmp_path).tensors(), "narrow.safetensors")
    text = str(error.value)
    assert "narrow.safetensors does not fit WanTransformer3DModel: is it of another size of the" in text
    assert "\n  scale_shift_table is (1, 2, 36) in the file, (1, 2, 24) in the network\n" in text


def test_another_familys_checkpoint_is_recognised(tmp_path, weights):
    save_file(dict(wan().state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(GeneratorError, match="is of another family, Wan video transformer, diffusers' names"):
        filled(tmp_path)
    original = {"time_projection.1.weight": torch.ones(1), "head.head.weight": torch.ones(1)}
    with pytest.raises(GeneratorError, match="original names; expected Wan video transformer, diffusers'"):
        fill(wan(), original, "wan.pth")


def families_of_diffusers():
    """Real classes at tiny size, by the family that their names must be recognised as."""
    from diffusers import (
        AutoencoderKL,
        AutoencoderKLTemporalDecoder,
        AutoencoderKLWan,
        UNet2DConditionModel,
        UNetSpatioTemporalConditionModel,
    )

    two = {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2}
    yield "Wan video transformer, diffusers' names", wan
    yield "Wan VAE, diffusers' names", lambda: AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1])
    yield "SVD VAE", lambda: AutoencoderKLTemporalDecoder(**two)
    yield "Stable Diffusion VAE", lambda: AutoencoderKL(
        **two, up_block_types=("UpDecoderBlock2D",) * 2)
    yield "SVD UNet", lambda: UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), num_attention_heads=(1, 2), cross_attention_dim=8, layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"))
    yield "Stable Diffusion UNet", lambda: UNet2DConditionModel(
        block_out_channels=(32, 64), cross_attention_dim=8, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))


@pytest.mark.parametrize(("known", "make"), list(families_of_diffusers()), ids=lambda each: str(each)[:8])
def test_real_networks_are_recognised_by_their_names_with_or_without_a_prefix(known, make):
    assert known in FAMILIES
    with weightless():
        names = list(make().state_dict())
    assert family(names) == known
    assert family(f"model.{name}" for name in names) == known


def test_a_lora_and_unknown_names_are_told_apart():
    assert family(["blocks.0.self_attn.q.lora_A.default.weight"]).startswith("LoRA adapter")
    assert family(["a.weight", "b.weight"]) is None
