"""Damaged, incomplete, ambiguous and dangerous checkpoints are refused with the file's name and a way out."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from generators.checkpoint import open_checkpoint
from generators.contract import GeneratorError


@pytest.fixture
def weights():
    return {f"layer.{n}": torch.full((2, 3), float(n)) for n in range(5)}


def save_shards(folder, weights):
    folder.mkdir()
    for n, (name, tensor) in enumerate(weights.items(), 1):
        save_file({name: tensor}, folder / f"model-{n:05}-of-{len(weights):05}.safetensors")
    return folder


@pytest.mark.parametrize("cut", [4, 60, -1])
def test_a_truncated_shard_is_named(tmp_path, weights, cut):
    folder = save_shards(tmp_path / "w", weights)
    shard = sorted(folder.glob("*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:cut])
    with pytest.raises(GeneratorError, match=rf"{shard.name} is (damaged or )?cut short.*download it again"):
        open_checkpoint(folder)


def test_a_truncated_torch_file_is_named(tmp_path, weights):
    path = tmp_path / "w.pt"
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(GeneratorError, match=r"w\.pt is damaged"):
        open_checkpoint(path)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil(), 2))
    for name in ("evil.pt", "evil.bin"):
        with pytest.raises(GeneratorError, match="run code when it is loaded; save its tensors as"):
            open_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_other_things_than_tensors_are_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": 3}, tmp_path / "w.pt")
    with pytest.raises(GeneratorError, match="other things than tensors by name; save only its state_dict"):
        open_checkpoint(tmp_path)


def test_missing_shards_are_named(tmp_path, weights):
    folder = save_shards(tmp_path / "w", weights)
    gone = sorted(folder.glob("*.safetensors"))[1]
    gone.unlink()
    for path in (folder, min(folder.glob("*.safetensors"))):
        with pytest.raises(GeneratorError, match=rf"1 of 5 shards are missing in .*w: {gone.name}"):
            open_checkpoint(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path, weights):
    folder = save_shards(tmp_path / "w", weights)
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(GeneratorError, match=f"is in {first.name} and in {second.name}; remove one"):
        open_checkpoint(folder)


def test_what_is_no_checkpoint_is_explained(tmp_path):
    with pytest.raises(GeneratorError, match="no checkpoint at .*lost; give a weights file, an index or"):
        open_checkpoint(tmp_path / "lost")
    with pytest.raises(GeneratorError, match="holds no weights; expected .safetensors, .pt"):
        open_checkpoint(tmp_path)
    (tmp_path / "w.txt").write_text("x")
    with pytest.raises(GeneratorError, match=r"w\.txt is no checkpoint by its name; known are \.safetensors"):
        open_checkpoint(tmp_path / "w.txt")
    (tmp_path / "w.safetensors.index.json").write_text("{}")
    with pytest.raises(GeneratorError, match="is no index of shards"):
        open_checkpoint(tmp_path)


def test_two_checkpoints_in_a_folder_are_not_chosen_between(tmp_path, weights):
    for name in ("w.safetensors", "w.fp16.safetensors"):
        save_file(weights, tmp_path / name)
    with pytest.raises(GeneratorError, match=r"more than one checkpoint: w\.fp16\.safetensors, w\."):
        open_checkpoint(tmp_path)


def test_a_pointer_of_git_lfs_is_recognised(tmp_path):
    (tmp_path / "w.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(GeneratorError, match="only a pointer of git LFS; fetch the file itself: git"):
        open_checkpoint(tmp_path)


def test_a_torch_file_that_holds_itself_is_refused_at_once(tmp_path, weights):
    itself = {}
    itself["state_dict"] = itself
    torch.save(itself, tmp_path / "w.pt")
    with pytest.raises(GeneratorError, match=r"w\.pt holds other things than tensors by name"):
        open_checkpoint(tmp_path / "w.pt")
    torch.save({"model": {"module": {"state_dict": weights}}}, tmp_path / "w.pt")
    assert set(open_checkpoint(tmp_path / "w.pt").tensors()) == set(weights)


@pytest.mark.parametrize("header", [
    b"[" * 100_000, b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, "8"]}}', b'{"a": [0, 8]}',
    b'{"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}',
    b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}',
    b'{"a": {"dtype": "F32", "shape": [' + b"1" * 400 + b'], "data_offsets": [0, 8]}}',
    b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 8]}}'])
def test_a_header_that_no_writer_makes_is_damage(tmp_path, header):
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(GeneratorError, match=r"w\.safetensors is damaged or cut short"):
        open_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize("index", ["[" * 100_000, '{"weight_map": {"a": 3}}', '{"weight_map": {}}'])
def test_an_index_that_no_writer_makes_is_named(tmp_path, index):
    (tmp_path / "w.safetensors.index.json").write_text(index)
    with pytest.raises(GeneratorError, match=r"index\.json (is no index|names no shard).*; download it"):
        open_checkpoint(tmp_path)


def test_an_index_may_name_what_no_file_is_called(tmp_path):
    text = '{"weight_map": {"a": "x\\u0000y", "b": "' + "c" * 300 + '"}}'
    (tmp_path / "w.safetensors.index.json").write_text(text)
    with pytest.raises(GeneratorError, match="2 of 2 shards are missing"):
        open_checkpoint(tmp_path)
