"""Work is counted exactly, random networks are what they should be, ways are read or refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.gpu.counted import count, size_of
from bench.gpu.expected import expected
from bench.gpu.filled import filled, inputs_of
from bench.gpu.fp8 import Fp8Linear, quantised, to_fp8
from bench.gpu.measure import crossing
from bench.gpu.subjects import load_subject
from bench.gpu.ways import FEATURES, Way, channels_last
from engines.spec import Cadence, ComponentSpec, Range, TensorSpec


class Attend(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 32, bias=False, device="meta")

    def forward(self, x):
        query = self.linear(x).view(2, 4, 40, 8)
        return F.scaled_dot_product_attention(query, key=query, value=query).relu()


def test_operations_and_bytes_of_a_linear_layer_attention_and_a_pointwise_one_are_exact():
    work = count(Attend(), [torch.empty(2, 40, 16, device="meta")])
    linear, attention = 2 * 80 * 16 * 32, 2 * 2 * (2 * 4 * 40 * 40 * 8)
    assert work.operations == linear + attention and work.attention == attention
    x, weight, hidden = 2 * 40 * 16, 16 * 32, 2 * 40 * 32
    assert work.least_bytes == 4 * (x + weight + hidden)
    assert work.eager_bytes == 4 * (x + weight + hidden) + 4 * 4 * hidden + 4 * 2 * hidden
    assert work.floor(rate=1e6, bandwidth=1e12) == work.operations / 1e6
    assert work.floor(rate=1e12, bandwidth=1e6) == work.least_bytes / 1e6


def test_a_repeated_number_is_counted_once():
    assert size_of(torch.empty(1, 8, device="meta").expand(1000, 8)) == 8 * 4


def test_looking_at_a_tensor_in_another_way_moves_nothing():
    class Turn(nn.Module):
        def forward(self, x):
            return x.view(4, 4).t().unsqueeze(0)

    assert count(Turn(), [torch.empty(16, device="meta")]).eager_bytes == 0


class Parts(nn.Module):
    _keep_in_fp32_modules = ["norm"]

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(64, 32), nn.Linear(64, 20)])
        self.norm, self.outside = nn.LayerNorm(32), nn.Linear(64, 32)
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def test_a_filled_network_is_the_same_each_time_keeps_tables_and_what_must_stay_in_fp32():
    one, two = (filled(Parts, "cpu", torch.bfloat16) for _ in range(2))
    assert torch.equal(one.blocks[0].weight, two.blocks[0].weight)
    assert one.blocks[0].weight.dtype == torch.bfloat16 and one.norm.weight.dtype == torch.float32
    assert torch.equal(one.table, torch.arange(3.0)) and one.norm.weight.eq(1).all()
    assert one.blocks[0].bias.eq(0).all()
    lengths = filled(Parts, "cpu", torch.float32).blocks[0].weight.norm(dim=1)
    assert 0.8 < lengths.mean() < 1.2
    assert {p.device.type for p in filled(Parts, "meta", torch.float16).parameters()} == {"meta"}


def test_rounding_is_all_that_differs_between_dtypes():
    exact, half = (filled(Parts, "cpu", dtype).blocks[0].weight for dtype in (torch.float32, torch.float16))
    assert torch.equal(exact.half(), half)


def test_inputs_follow_the_spec():
    spec = ComponentSpec("c", Cadence.STEP, (TensorSpec("pixels", ("n", 4, 3), "uint8"),
                                             TensorSpec("time", (5,)), TensorSpec("x", (2, "n"))), (),
                         {"n": Range(1, 2, 9)})
    pixels, time, x = inputs_of(spec, {"n": 7}, "cpu")
    assert pixels.shape == (7, 4, 3) and pixels.dtype == torch.uint8
    assert time.min() >= 0 and time.max() <= 1 and x.shape == (2, 7) and x.min() < 0


def test_eight_bits_replace_the_layers_of_blocks_that_fit_and_come_close():
    module = filled(Parts, "cpu", torch.bfloat16)
    before, x = module.blocks[0], torch.randn(2, 5, 64, dtype=torch.bfloat16)
    assert to_fp8(module) == 1  # 20 is no multiple of 16, and `outside` is in no block
    assert isinstance(module.blocks[0], Fp8Linear) and isinstance(module.outside, nn.Linear)
    with torch.inference_mode():
        expected, found = before(x), module.blocks[0](x)
    assert found.shape == expected.shape
    assert 0.002 < float((found - expected).norm() / expected.norm()) < 0.08
    rows, scale = quantised(x.flatten(0, 1))
    assert float((rows.float() * scale - x.flatten(0, 1)).abs().max()) < 0.07 * float(x.abs().max())


def test_channels_go_innermost_in_kernels_of_two_and_of_three_axes():
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3), nn.Linear(4, 4))
    channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert module[1].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_way_is_read_from_its_text_and_a_wrong_one_is_told_what_there_is():
    assert Way.parse("compile+fp8:bf16") == Way(frozenset({"compile", "fp8"}), "bf16")
    for text in ("comple:bf16", "eager", "eager:fp8"):
        with pytest.raises(ValueError, match=f"no way '{text}'; it is made of .*compile.*fp16"):
            Way.parse(text)
    assert all(Way.parse(f"{feature}:fp16").features == {feature} for feature in FEATURES)


@pytest.mark.parametrize(("name", "tflop", "attention"), [
    ("wan-17", 40.89, 17.47), ("wan-81", 307.8, 222.0), ("wan-decode", 13.55, 0.0598),
    ("mimicmotion-16", 49.23, 9.949), ("mimicmotion-decode", 55.54, 1.392)])
def test_full_size_networks_are_as_large_as_published(name, tflop, attention):
    if name.startswith("mimicmotion"):
        pytest.importorskip("generators.mimicmotion")
    subject = load_subject(name, tiny=False)
    work = count(subject.build("meta", torch.float16), _inputs(subject))
    assert work.operations / 1e12 == pytest.approx(tflop, rel=1e-3)
    assert work.attention / 1e12 == pytest.approx(attention, rel=1e-3)


def _inputs(subject):
    inputs = inputs_of(subject.spec, subject.sizes, "meta")
    return [each.half() if subject.same_dtype and each.is_floating_point() else each for each in inputs]


def test_what_crosses_to_a_gpu_is_counted_as_engines_take_it():
    subject = load_subject("presenter", tiny=False)
    latents, reference = 16 * 16 * 24 * 16, 16 * 24 * 16
    assert crossing(subject) == 4 * (3 * latents + reference + 2)


def test_what_is_expected_is_a_table_with_a_row_for_each_network():
    pytest.importorskip("generators.mimicmotion")
    table = expected(tiny=True).splitlines()
    assert len(table) == 2 + 7 and len({line.count("|") for line in table}) == 1
