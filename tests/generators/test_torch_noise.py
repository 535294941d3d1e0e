"""Torch's normal numbers in NumPy: bit for bit those of a processor, and those published of GPUs."""

import numpy as np
import pytest
import torch

from generators.noise import CudaNormal, philox, torch_normal


@pytest.mark.parametrize("seed", [0, 42, 2**31 + 5, 2**40 + 1])
@pytest.mark.parametrize("size", [16, 17, 31, 32, 1000, 65537, 1 << 20])
def test_numbers_of_a_processor_are_torch_s_bit_for_bit(size, seed):
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch uses the C library's functions here")
    wanted = torch.randn(size, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_array_equal(torch_normal((size,), seed), wanted)


def test_what_was_drawn_before_is_skipped():
    generator = torch.Generator().manual_seed(42)
    torch.randn(1, 3, 64, 48, generator=generator)
    wanted = torch.randn(1, 6, 4, 8, 6, generator=generator).numpy()
    np.testing.assert_allclose(torch_normal((1, 6, 4, 8, 6), 42, skip=3 * 64 * 48), wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(16,), (1, 4, 3, 8, 8), (17,), (31,), (1, 4, 7, 35, 25)])
def test_calls_before_with_the_same_shape_are_counted_whatever_its_size(shape):
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch uses the C library's functions here")
    generator = torch.Generator().manual_seed(42)
    for calls in range(4):
        wanted = torch.randn(shape, generator=generator).numpy()
        np.testing.assert_array_equal(torch_normal(shape, 42, calls=calls), wanted)


def test_calls_of_one_shape_come_behind_what_is_skipped():
    generator = torch.Generator().manual_seed(42)
    torch.randn(32, generator=generator), torch.randn(21, generator=generator)
    wanted = torch.randn(21, generator=generator).numpy()
    np.testing.assert_allclose(torch_normal((21,), 42, skip=32, calls=1), wanted, atol=1e-5)


def test_numbers_to_skip_that_are_no_whole_sixteens_are_refused_with_what_counts_them():
    with pytest.raises(ValueError, match="got 17 after 17; calls=N counts calls with the same shape"):
        torch_normal((17,), 1, skip=17)


@pytest.mark.parametrize(("size", "skip"), [(15, 0), (16, 8)])
def test_fewer_than_sixteen_numbers_are_refused(size, skip):
    with pytest.raises(ValueError, match="needs 16 numbers or more after whole 16s"):
        torch_normal((size,), 1, skip)


@pytest.mark.parametrize(("counter", "key", "drawn"), [
    ([0] * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0),
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
])
def test_philox_gives_the_known_answers_of_its_authors(counter, key, drawn):
    found = philox(np.array(counter, np.uint64)[:, None], key)[:, 0]
    assert " ".join(f"{int(number):08x}" for number in found) == drawn


@pytest.mark.parametrize(("seed", "published"), [
    (0, [-0.9247, -0.4253, -2.6438, 0.1452]), (42, [0.1940, 2.1614, -0.1721, 0.8491])])
def test_numbers_of_a_gpu_are_those_that_users_have_published(seed, published):
    np.testing.assert_allclose(CudaNormal(seed, 108)((4,)), published, atol=5.1e-5)


def test_the_layout_on_a_gpu_goes_on_over_rounds_and_calls():
    """With two multiprocessors of 256 threads a round is 2048 numbers: lane, then fourth, then round."""
    draw = CudaNormal(7, 2, threads=256)
    first = draw((3000,))
    small = CudaNormal(7, 1, threads=256)((1024,))  # 256 lanes, one round
    np.testing.assert_array_equal(first[:256], small[:256])
    np.testing.assert_array_equal(first[512:768], small[256:512])
    again = CudaNormal(7, 2, threads=256)
    again((1,))  # one round of its own, as the first 2048 were
    np.testing.assert_array_equal(again((952,))[:256], first[2048:2304])
    assert abs(first.std() - 1) < 0.05 and abs(first.mean()) < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_numbers_of_this_gpu_are_those_of_the_formula():
    about = torch.cuda.get_device_properties(0)
    draw = CudaNormal(42, about.multi_processor_count, about.max_threads_per_multi_processor)
    generator = torch.Generator("cuda").manual_seed(42)
    for shape in ((1, 3, 1024, 576), (1, 72, 4, 128, 72)):
        wanted = torch.randn(shape, generator=generator, device="cuda").cpu().numpy()
        np.testing.assert_allclose(draw(shape), wanted, atol=1e-4)
