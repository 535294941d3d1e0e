"""Exact rewrites: the same numbers as the network they were made of, and hands off what they do not know."""

import copy
import sys
from pathlib import Path

import onnx
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers import transformer_wan

import optimize.exact_rewrites as rewrites
from engines.backends.torch_backend import TorchEngine
from engines.onnx.export import Target, export_onnx
from engines.onnx.parity import ParityError, draw
from generators.contract import load_generator
from generators.presenter.model import Denoise, DenoiserSize
from optimize.exact_rewrites import EXACT, REWRITES, Call, rewrite
from tests.graphs import copy_built

ROOT = Path(__file__).resolve().parents[2]
TOKEN, ROTARY = (each.what for each in REWRITES)


def scrambled(module):
    """With random numbers everywhere, norms and biases too, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(1)
    for weight in module.parameters():
        spread = 0.5 / weight.shape[-1] ** 0.5 if weight.ndim > 1 else 0.5
        weight.data = torch.randn(weight.shape, generator=generator) * spread
    return module.eval()


class Said(torch.nn.Module):
    """A transformer that sees a context of its own, with as many tokens as told."""

    def __init__(self, tokens=1, **options):
        super().__init__()
        self.context = torch.nn.Parameter(torch.zeros(1, tokens, 16))
        self.transformer = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
            freq_dim=8, ffn_dim=32, num_layers=2, rope_max_seq_len=8, **options)

    def forward(self, x, time):
        context = self.context.expand(len(x), -1, -1)
        return self.transformer(x, time, context, return_dict=False)[0]


@pytest.fixture
def network():
    """The presenter's denoiser in small, with random numbers everywhere."""
    return scrambled(Denoise(DenoiserSize(heads=2, head_dim=24, layers=2, ffn=32)))


def window(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents, pose = (torch.randn(batch, 16, 3, 4, 6, generator=generator) for _ in range(2))
    times, flags = (torch.rand(batch, generator=generator) for _ in range(2))
    return latents, times, pose, torch.randn(batch, 16, 4, 6, generator=generator), flags


def clip(seed=0):
    return torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(seed)), torch.tensor([3.0, 700])


def largest_error(one, other, inputs):
    with torch.inference_mode():
        a, b = one(*inputs), other(*inputs)
    assert a.shape == b.shape and a.std() > 0.1
    return (a - b).abs().max().item()


@pytest.mark.parametrize("each", REWRITES, ids=lambda each: each.what)
def test_each_rewrite_computes_what_the_network_it_was_made_of_computes(network, each, monkeypatch):
    monkeypatch.setattr(rewrites, "REWRITES", (each,))
    made, changes = rewrite(network, window())
    assert changes == [f"2 x {each.what}"] and made is not network
    for batch in (1, 2):
        assert largest_error(network, made, window(batch, seed=9)) <= 1e-5


@pytest.mark.parametrize("each", REWRITES, ids=lambda each: each.what)
def test_the_comparison_would_notice_a_layer_that_a_rewrite_forgets(network, each):
    """Turning one weight of what the rewrites touch shows by far more than what they may cost."""
    layers = {TOKEN: ("attn2.to_v", "attn2.to_out.0"), ROTARY: ("attn1.to_q", "attn1.to_k", "attn1.norm_q",
                                                              "attn1.norm_k", "attn1.to_out.0")}
    for name in layers[each.what]:
        for part in dict(network.transformer.blocks[1].get_submodule(name).named_parameters()):
            other = copy.deepcopy(network)
            weight = getattr(other.transformer.blocks[1].get_submodule(name), part)
            weight.data = weight.data.roll(1, 0)
            assert largest_error(network, other, window()) > 1e-4, (name, part)


def test_all_rewrites_together_apply_and_compute_the_same(network):
    made, changes = rewrite(network, window())
    assert changes == [f"2 x {TOKEN}", f"2 x {ROTARY}"]
    assert largest_error(network, made, window(seed=9)) <= 1e-5


def test_the_network_given_is_left_as_it_was_and_lends_its_weights(network):
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    with torch.inference_mode():
        expected = network(*window())
        made, _ = rewrite(network, window())
        assert torch.equal(network(*window()), expected)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(layer._forward_pre_hooks for layer in network.modules())
    moved = {name for name, weight in made.state_dict().items()
             if weight.data_ptr() != after[name].data_ptr()}
    turned = ("to_q.weight", "to_q.bias", "to_k.weight", "to_k.bias", "norm_q.weight", "norm_k.weight")
    assert moved == {f"transformer.blocks.{block}.attn1.{name}" for block in range(2) for name in turned}


def test_attention_to_one_token_no_longer_sees_the_query_its_norm_or_the_key(network):
    made, _ = rewrite(network, window())
    for block in made.transformer.blocks:
        cross = block.attn2
        for layer in (block.norm2, cross.to_q, cross.to_k, cross.norm_q, cross.norm_k):
            for weight in layer.parameters():
                weight.data = torch.full_like(weight, float("nan"))
    assert largest_error(scrambled(copy.deepcopy(network)), made, window()) <= 1e-5


def test_a_context_of_two_tokens_is_left_alone():
    for tokens, expected in ((1, [TOKEN, ROTARY]), (2, [ROTARY])):
        network = scrambled(Said(tokens))
        made, changes = rewrite(network, clip())
        assert changes == [f"2 x {what}" for what in expected]
        assert type(made.transformer.blocks[0].attn2.processor).__name__ == (
            "_OneToken" if tokens == 1 else "WanAttnProcessor")
        assert largest_error(network, made, clip(9)) <= 1e-5


def test_a_layer_that_is_called_with_one_token_and_then_with_two_is_left_alone():
    class Twice(Said):
        def forward(self, x, time):
            one = self.transformer(x, time, self.context[:, :1].expand(2, -1, -1), return_dict=False)[0]
            return one + super().forward(x, time)

    assert rewrite(scrambled(Twice(2)), clip())[1] == [f"2 x {ROTARY}"]


@pytest.mark.parametrize("call", [Call(1, True, False), Call(1, False, True), Call(2, False, False)])
def test_one_token_with_a_mask_or_rotary_is_not_recognised(network, call):
    assert REWRITES[0].fits(network, {"transformer.blocks.0.attn2": [Call(1, False, False), call]}) == []
    assert REWRITES[0].fits(network, {"transformer.blocks.0.attn2": []}) == []


@pytest.mark.parametrize("call", [Call(0, True, True), Call(0, False, False), Call(1, False, True)])
def test_self_attention_with_a_mask_or_without_rotary_is_not_recognised(network, call):
    assert REWRITES[1].fits(network, {"transformer.blocks.0.attn1": [Call(0, False, True), call]}) == []


def change_processor(attention):
    class Other(transformer_wan.WanAttnProcessor):
        def __call__(self, *arguments, **named):
            return 2 * super().__call__(*arguments, **named)

    attention.processor = Other()


def adapt(attention):
    class Adapted(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    attention.to_v.__class__ = Adapted


def fuse(attention):
    attention.fuse_projections()


@pytest.mark.parametrize("change", [change_processor, adapt, fuse])
def test_layers_that_were_changed_by_others_are_left_alone(network, change):
    for block in network.transformer.blocks:
        change(block.attn1)
        change(block.attn2)
    made, changes = rewrite(network, window())
    assert made is network and changes == []


def test_attention_to_one_token_in_a_block_of_another_class_is_left_alone(network):
    class Block(transformer_wan.WanTransformerBlock):
        def forward(self, *arguments):
            return super().forward(*arguments).flip(1)

    network.transformer.blocks[1].__class__ = Block
    made, changes = rewrite(network, window())
    assert changes == [f"1 x {TOKEN}", f"2 x {ROTARY}"]
    assert largest_error(network, made, window(seed=9)) <= 1e-5


def test_a_generator_of_one_s_own_without_known_layers_is_exported_as_it_is(tmp_path):
    generator, told = load_generator(f"{ROOT / 'examples' / 'my_generator.py'}:MyGenerator"), []
    for component, spec in generator.components.items():
        module = generator.build(component)
        inputs = [torch.from_numpy(array) for array in draw(spec, {"n": 2, "b": 2}, 0).values()]
        assert rewrite(module, inputs) == (module, [])
    export_onnx(generator, "decode", Target(tmp_path, told.append), rewriting=EXACT)
    assert not any("rewritten" in line for line in told)


def test_a_network_is_not_run_and_diffusers_not_imported_where_nobody_else_did(monkeypatch):
    class Untouchable(torch.nn.Module):
        def forward(self):
            raise AssertionError("it ran")

    for wan in rewrites.WAN:
        monkeypatch.delitem(sys.modules, wan, raising=False)
    module = Untouchable()
    assert rewrite(module, ()) == (module, []) and not sys.modules.keys() & set(rewrites.WAN)


def test_the_graph_is_the_rewritten_network_s_and_is_held_against_the_plain_one(tiny, graph):
    from engines.backends.onnxruntime_backend import OnnxRuntimeEngine

    artifact = graph(tiny, "denoise")
    nodes = onnx.load(artifact.path).graph.node
    kinds, names = {node.op_type for node in nodes}, " ".join(node.name for node in nodes)
    assert "ScatterND" not in kinds and "attn2.to_q" not in names and "norm2" not in names
    assert artifact.manifest["facts"]["rewrites"] == [f"1 x {TOKEN}", f"1 x {ROTARY}"]
    spec = tiny.components["denoise"]
    inputs = draw(spec, {"b": 2}, seed=9)
    plain, engine = TorchEngine(spec, tiny.build("denoise")), OnnxRuntimeEngine(spec, artifact.path)
    assert abs(plain(**inputs)["flow"] - engine(**inputs)["flow"]).max() < 1e-4


def test_a_graph_of_other_rewrites_is_not_kept(tiny, tiny_built, tmp_path):
    from engines.onnx.export import Change

    told = []
    target = Target(copy_built(tiny_built, tmp_path / "built") / tiny.name, told.append)
    artifact = export_onnx(tiny, "decode", target, rewriting=EXACT)
    assert "kept" in told[-1]
    source = tmp_path / "rewrites.py"
    source.write_text(Path(rewrites.__file__).read_text() + "# changed\n")
    again = export_onnx(tiny, "decode", target, rewriting=Change(rewrite, (source,)))
    plain = export_onnx(tiny, "decode", target)
    assert len({artifact.path, again.path, plain.path}) == 3
    assert plain.manifest["built_from"]["rewrites"] is None and plain.manifest["facts"]["rewrites"] == []


def test_a_rewrite_that_computes_something_else_stops_the_export(tiny, tmp_path, monkeypatch):
    right = rewrites._rotate
    monkeypatch.setattr(rewrites, "_rotate", lambda x, cos, sin: right(x, cos, -sin) * 1.5)
    told, label = [], "denoise-fp32.onnx: "
    with pytest.raises(ParityError, match="denoise: flow in fp32 is too far from its reference"):
        export_onnx(tiny, "denoise", Target(tmp_path, told.append), rewriting=EXACT)
    assert told == [f"{label}rewritten: 1 x {TOKEN}", f"{label}rewritten: 1 x {ROTARY}"]
    assert list(tmp_path.iterdir()) == []
