"""A weight that a network has by several names is one, whichever of the names a file has."""

import gc
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from generators.checkpoint import fill, open_checkpoint, weightless
from generators.contract import GeneratorError


class Net(nn.Module):
    """An embedding whose table is the last layer's weight too, and one that is a scale by two names."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        scale = nn.Parameter(torch.randn(4))
        self.scale, self.again = scale, scale
        self.inner = self.same = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.head(self.inner(self.embed(x)) * self.scale + self.again)


def made(lazily):
    if not lazily:
        return Net()
    with weightless():
        return Net()


def names_of(network):
    """The sets of names that are one parameter or buffer each."""
    found = {}
    for each in (network.named_parameters, network.named_buffers):
        for name, tensor in each(remove_duplicate=False):
            found.setdefault(id(tensor), set()).add(name)
    return sorted(map(sorted, found.values()))


@pytest.mark.parametrize("lazily", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_file_that_has_one_of_the_names_fills_the_network_which_stays_tied(tmp_path, lazily, dtype):
    torch.manual_seed(0)
    whole, network = Net().eval(), made(lazily)
    save_model(whole, str(tmp_path / "w.safetensors"))
    assert len(load_file(tmp_path / "w.safetensors")) < len(whole.state_dict())
    fill(network, open_checkpoint(tmp_path).tensors(), tmp_path, dtype)
    assert names_of(network) == names_of(whole) and not any(p.requires_grad for p in network.parameters())
    x = torch.arange(10)
    assert torch.equal(network(x), whole.to(dtype or torch.float32)(x))


def test_a_file_that_has_all_names_fills_it_too(tmp_path):
    whole, network = Net(), made(True)
    tensors = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    fill(network, open_checkpoint(tmp_path).tensors(), tmp_path)
    assert torch.equal(network.head.weight, whole.embed.weight)


def test_a_network_built_weightless_keeps_its_ties_and_none_of_what_it_was_given():
    assert names_of(made(True)) == names_of(Net())
    with weightless():
        module = nn.Module()
        given = nn.Parameter(torch.ones(3))
        module.a, module.b, seen = given, given, weakref.ref(given)
        assert module.a is module.b and module.a.is_meta
        del given
        gc.collect()
        assert seen() is None


def test_weights_that_are_there_by_none_of_their_names_are_missing(tmp_path):
    state = Net().state_dict()
    with pytest.raises(GeneratorError, match="2 missing:\n  scale\n  again"):
        fill(made(True), {n: t for n, t in state.items() if n not in ("scale", "again")}, "w")
