"""Work is counted exactly, random networks are what they should be, variants are read or refused."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engines.attention import open_attention
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from lab.gpu import measure, variants
from lab.gpu.__main__ import across, expected
from lab.gpu.counted import count, crossing, size_of
from lab.gpu.crossing import bytes_across
from lab.gpu.expected import PREDICTED
from lab.gpu.fake_arrays import FakePlace
from lab.gpu.frames import TIMED, one_ulp
from lab.gpu.networks import NETWORKS
from lab.gpu.random_init import SMALL, inputs_of, normal, random_init
from lab.gpu.run import ENTRIES
from lab.gpu.table import BRIEF, brief, floor_of, markdown
from lab.gpu.variants import FEATURES, as_taken, channels_last, parse
from pipeline.sampler import generate
from tests.fake_device import counted_engines


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
    assert floor_of(vars(work), {"bf16": 1e6, "copy": 1e12}) == work.operations / 1e6
    assert floor_of(vars(work), {"bf16": 1e12, "copy": 1e6}) == work.least_bytes / 1e6
    assert floor_of(vars(work), {"bf16": 1e12, "copy": "RuntimeError: no"}) is None


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
    one, two = (random_init(Parts, "cpu", torch.bfloat16) for _ in range(2))
    assert torch.equal(one.blocks[0].weight, two.blocks[0].weight)
    assert one.blocks[0].weight.dtype == torch.bfloat16 and one.norm.weight.dtype == torch.float32
    assert torch.equal(one.table, torch.arange(3.0)) and one.norm.weight.eq(1).all()
    assert one.blocks[0].bias.eq(0).all()
    lengths = random_init(Parts, "cpu", torch.float32).blocks[0].weight.norm(dim=1)
    assert 0.8 < lengths.mean() < 1.2
    assert {p.device.type for p in random_init(Parts, "meta", torch.float16).parameters()} == {"meta"}


def test_rounding_is_all_that_differs_between_dtypes():
    dtypes = torch.float32, torch.float16
    exact, half = (random_init(Parts, "cpu", dtype).blocks[0].weight for dtype in dtypes)
    assert torch.equal(exact.half(), half)


def test_inputs_follow_the_spec():
    spec = ComponentSpec("c", Cadence.STEP, (TensorSpec("pixels", ("n", 4, 3), "uint8"),
                                             TensorSpec("time", (5,)), TensorSpec("x", (2, "n"))), (),
                         {"n": DimRange(1, 2, 9)})
    pixels, time, x = inputs_of(spec, {"n": 7}, "cpu")
    assert pixels.shape == (7, 4, 3) and pixels.dtype == torch.uint8
    assert time.min() >= 0 and time.max() <= 1 and x.shape == (2, 7) and x.min() < 0


def test_channels_go_innermost_in_kernels_of_two_and_of_three_axes():
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3), nn.Linear(4, 4))
    channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert module[1].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_way_is_read_from_its_text_and_a_wrong_one_is_told_what_there_is():
    assert parse("compile+cudnn:bf16") == (frozenset({"compile", "cudnn"}), "bf16")
    for text in ("comple:bf16", "eager", "eager:fp8"):
        with pytest.raises(ValueError, match=f"no variant '{text}'; it is made of .*compile.*fp16"):
            parse(text)
    assert all(parse(f"{feature}:fp16")[0] == {feature} for feature in FEATURES)


def test_attention_of_a_cudnn_way_is_what_infer_runs_and_is_computed_where_there_is_no_cudnn():
    ways = []

    class Ask(nn.Module):
        def forward(self, x):
            ways.append(torch._C._get_sdp_priority_order())
            return F.scaled_dot_product_attention(x, x, x)

    model, x = SimpleNamespace(build=lambda device, dtype: Ask(), same_dtype=False), torch.ones(1, 2, 8, 4)
    for open_it, way in ((nullcontext, "eager:fp32"), (open_attention("cudnn"), "cudnn:fp32")):
        assert variants.prepare(model, way, [x], "cpu")().allclose(x)
        with open_it():
            assert ways[-1] == torch._C._get_sdp_priority_order()
    assert ways[0] != ways[1]


@pytest.mark.parametrize(("variant", "device", "backend", "mode"), [
    ("compile:fp16", "cuda", "inductor", "reduce-overhead"), ("compile+graph:fp16", "cuda", "inductor", None),
    ("compile:fp16", "cpu", "eager", None)])
def test_compiled_ways_are_compiled_as_the_backend_compiles(monkeypatch, variant, device, backend, mode):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: asked.append(how) or module)
    monkeypatch.setattr(variants, "captured", lambda call: call)
    model = SimpleNamespace(build=lambda device, dtype: nn.Identity(), same_dtype=False)
    call = variants.prepare(model, variant, [torch.ones(2)], device)
    assert asked == [{"dynamic": False, "backend": backend, "mode": mode}] and call().tolist() == [1, 1]


def test_a_ways_result_is_kept_before_its_next_call_writes_over_it(monkeypatch):
    held = torch.zeros(1)
    monkeypatch.setattr(measure, "prepare", lambda *given: lambda: held.add_(1))
    _, row, made = measure._begin(None, "compile:fp16", [], "cpu")
    assert made.tolist() == [measure.WARM_UP] and held.tolist() > [measure.WARM_UP] and row["rounds"] == 0


def test_every_prediction_is_of_something_that_is_measured():
    for name, each in PREDICTED.items():
        variants = TIMED if name.endswith("end to end") else (ENTRIES[name].given or (None, each))[1]
        assert set(each) <= set(variants), name


def test_beside_a_prediction_stands_what_was_measured_or_why_not():
    entries = {
        "machine": {"rates": {"bf16": 395e12}},
        "wan-81": {"ways": {"eager:bf16": {"seconds": 0.352}, "cudnn:bf16": {"refused": "no kernel"}}},
        "presenter end to end": {"ways": {"torch:fp16 fast": {"seconds": 0.08}}},
        "wan-81 compiled": {"left_out": "its 120 s did not fit into 60 s"},
    }
    table = markdown({name: {**entry, "status": "done"} for name, entry in entries.items()}).splitlines()
    for row in ("machine: bf16|7.9e+14|3.95e+14|0.50", "wan-81: eager:bf16|704|352|0.50",
                "wan-81: cudnn:bf16|618|no kernel|", "presenter end to end: torch:fp16 fast|0.04|0.08|2.00",
                "wan-81 compiled: compile+cudnn:bf16|540|its 120 s did not fit into 60 s|",
                "wan-decode: eager:fp16|95|not run yet|"):
        assert f"|{row}|" in table


def test_what_is_printed_is_short_with_kernels_where_they_fit_and_has_every_row():
    words = "no kernel of this kind for this GPU " * 8
    network = {"operations": 3.078e14, "attention": 2.22e14, "least_bytes": 2.85e9, "eager_bytes": 7.707e11,
               "crossing": 1.203e8}
    row = {"seconds": 0.70412, "least": 0.70398, "most": 0.70451, "error": 0.0012345, "apart": 0.0012345,
           "memory_mb": 12345, "start_seconds": 12.34, "speed": 1.234, "psnr": 51.23, "similarity": 0.99987}
    kernels = [{"kernel": "void cutlass::device_kernel<" + "flash" * 16, "seconds": 0.1, "launches": 60}] * 20
    entries = {name: {"status": "done", "seconds": 80.1} for name in ENTRIES}
    for name in ENTRIES:
        if ENTRIES[name].given:
            entries[name] |= {"work": network, "ways": dict.fromkeys(ENTRIES[name].given[1], row),
                              "profile": {"way": "eager:bf16", "idle": 0.01, "busy": 0.7, "kernels": kernels}}
    entries["machine"]["rates"] = {f"attention of mimicmotion-72, 36x64, {n}": 5e14 for n in range(29)}
    entries["tests"] |= {"counts": {"passed": 3, "skipped": 8}, "reasons": {f"{'test_' * 12}{n}": words
                                                                            for n in range(8)}}
    entries["presenter end to end"]["ways"] = dict.fromkeys([*TIMED, "torch:fp32 baseline"], row)
    first = [name for name in ENTRIES if "compiled" not in name]
    for names in (first, list(ENTRIES)):
        text = brief(entries, names)
        assert len(text) <= BRIEF and all(f"|{row}|" in text for row in TIMED)
        assert text.count("|eager:bf16|704.1") == 2 + names.count("wan-81 compiled plain")
    entries["wan-81"]["ways"] = {"eager:bf16": row}
    assert brief(entries, ["wan-81"]).count("cutlass") == 3 and markdown(entries).count("cutlass") == 20 * 7


def test_small_tensors_are_drawn_on_the_processor_whatever_the_device():
    torch.manual_seed(3)
    expected = torch.randn(SMALL // 8, 8)
    torch.manual_seed(3)
    assert torch.equal(normal((SMALL // 8, 8), "cpu"), expected)
    assert normal((SMALL // 8, 8), "meta").device.type == "meta"


def test_one_ulp_of_bfloat16_is_added_away_from_zero():
    numbers = np.array([1.0, -1.0, 3.0, 0.3], np.float32)
    moved = torch.from_numpy(one_ulp(numbers))
    assert moved[:3].tolist() == [1 + 2**-7, -1 - 2**-7, 3 + 2**-6]
    assert (moved.bfloat16() != torch.from_numpy(numbers).bfloat16()).all()


@pytest.mark.parametrize(("name", "tflop", "attention"), [
    ("wan-81", 307.8, 222.0), ("wan-decode", 13.55, 0.0598), ("mimicmotion-72", 222.0, 45.19)])
def test_full_size_networks_are_as_large_as_published(name, tflop, attention):
    model = NETWORKS[name]("full")
    inputs = as_taken(model, inputs_of(model.spec, model.sizes, "meta"), torch.float16)
    work = count(model.build("meta", torch.float16), inputs)
    assert work.operations / 1e12 == pytest.approx(tflop, rel=1e-3)
    assert work.attention / 1e12 == pytest.approx(attention, rel=1e-3)


def test_what_crosses_to_a_gpu_is_counted_as_engines_take_it():
    model = NETWORKS["presenter"]("full")
    latents, reference = 16 * 16 * 24 * 16, 16 * 24 * 16
    assert crossing(model.spec, model.sizes) == 4 * (3 * latents + reference + 2)


def test_what_is_expected_is_a_table_with_a_row_for_each_network():
    table = expected(tiny=True).splitlines()
    assert len(table) == 2 + len(NETWORKS) and len({line.count("|") for line in table}) == 1


def test_bytes_across_are_those_of_a_run_with_numbers(tiny):
    skeletons = np.random.default_rng(0).integers(0, 256, (20, 48, 32, 3), np.uint8)
    place = FakePlace()
    generate(tiny, counted_engines(tiny, place), skeletons, skeletons[0], 0)
    assert bytes_across(tiny, 20, resident=True) == (place.up.total(), place.down.total())
    windows, steps, latents, half = 2, 2, 4 * 16 * 16 * 6 * 4, 4 * 16 * 6 * 4
    denoise = steps * windows * 2 * (2 * latents + half + 8)  # latents and pose, reference, time and branch
    up, down = bytes_across(tiny, 20, resident=False)
    assert up == denoise + skeletons.nbytes + skeletons[0].nbytes + 20 * half  # decoded latents
    assert down == steps * windows * 2 * latents + 21 * half + skeletons.nbytes


def test_a_video_on_the_device_sends_a_small_part_of_what_passes_through_the_host():
    for line in across(tiny=True).splitlines()[2:]:
        up, down, less_up, less_down = map(float, line.strip("|").split("|")[1:])
        assert 10 * less_up < up and less_down < down
