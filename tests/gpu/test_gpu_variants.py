"""Variants of running a network on a GPU compute the same, and what is measured of the machine can be."""

import pytest

from lab.gpu.ceilings import measure_machine, noise_error
from lab.gpu.measure import distance
from lab.gpu.networks import NETWORKS
from lab.gpu.random_init import inputs_of
from lab.gpu.run import Place, gpu_state
from lab.gpu.variants import prepare

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("variant", [
    "eager:fp16", "graph:fp16", "channels_last:fp16", "compile:fp16", "flash:fp16", "engine:fp16"])
def test_a_variant_gives_what_fp32_gives_on_the_processor(variant):
    model = NETWORKS["presenter"]("full")
    inputs = inputs_of(model.spec, model.sizes, "cpu")
    expected = prepare(model, "eager:fp32", inputs, "cpu")()
    call = prepare(model, variant, [each.cuda() for each in inputs], "cuda")
    for _ in range(4):  # recorded, replayed, replayed again
        assert distance(call(), expected) < 0.02


def test_the_gpu_draws_the_noise_that_is_drawn_without_it():
    assert noise_error() < 1e-5


def test_the_rates_are_those_of_a_gpu(tmp_path):
    found = {}
    measure_machine(Place("cuda", False, tmp_path), found.__setitem__)
    rates = found["rates"]
    assert 1e12 < rates["fp32"] < rates["bf16"] < 1e16
    assert 5e10 < rates["copy"] < 5e13 and rates["to the device, pinned"] < rates["copy"]


def test_nvidia_smi_says_what_state_the_gpu_is_in():
    assert gpu_state()["clocks.sm"].endswith("MHz")
