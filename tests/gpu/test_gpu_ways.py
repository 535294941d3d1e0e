"""Ways to run a network on a GPU compute the same, and what is measured of the machine can be."""

import pytest
import torch

from bench.gpu.ceilings import ceilings
from bench.gpu.fp8 import Fp8Linear
from bench.gpu.machine import gpu_state
from bench.gpu.subjects import load_subject
from bench.gpu.ways import Place, Way, prepare

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("text", [
    "eager:fp16", "graph:fp16", "channels_last:fp16", "compile:fp16", "flash:fp16", "engine:fp16"])
def test_a_way_gives_what_fp32_gives(text, tmp_path):
    place = Place("cuda", tmp_path, tiny=False)
    subject = load_subject("presenter", tiny=False)
    torch.backends.cudnn.allow_tf32 = False
    expected = prepare(subject, Way.parse("eager:fp32"), place)().float().cpu()
    call = prepare(subject, Way.parse(text), place)
    for _ in range(4):  # recorded, replayed, replayed again
        found = call().float().cpu()
    assert float((found - expected).norm() / expected.norm()) < 0.02


def test_products_of_8_bit_floats_are_as_exact_as_their_three_bits():
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("8-bit floats need compute capability 8.9")
    layer = torch.nn.Linear(512, 256).to("cuda", torch.bfloat16)
    x = torch.randn(3, 70, 512, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        expected, found = layer(x), Fp8Linear(layer)(x)
    assert found.shape == expected.shape
    assert 0.002 < float((found - expected).norm() / expected.norm()) < 0.08


def test_the_ceilings_are_those_of_a_gpu(cuda):
    found = ceilings(cuda, tiny=False)
    assert 1e12 < found["fp32"] < found["bf16"] < 1e16
    assert 5e10 < found["copy"] < 5e13 and found["to_device_pinned"] < found["copy"]


def test_nvidia_smi_says_what_state_the_gpu_is_in():
    state = gpu_state()
    assert state["name"] in torch.cuda.get_device_name() and state["clocks.sm"].endswith("MHz")
