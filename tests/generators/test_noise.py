"""Noise as torch draws it on a processor."""

import numpy as np
import pytest
import torch

from generators.noise import torch_normal


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**40 + 5])
def test_the_numbers_are_torchs_whatever_was_drawn_before(seed):
    torch.manual_seed(seed)
    first, second = torch.randn(1, 16, 5, 6, 4), torch.randn(3, 16)
    assert torch_normal((1, 16, 5, 6, 4), seed).dtype == np.float32
    np.testing.assert_allclose(torch_normal((1, 16, 5, 6, 4), seed), first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(torch_normal((3, 16), seed, skip=first.numel()), second, rtol=0, atol=1e-6)


def test_sizes_that_torch_draws_in_another_way_are_refused():
    for shape, skip in (((15,), 0), ((16,), 3)):
        with pytest.raises(ValueError, match="16 numbers or more after whole 16s"):
            torch_normal(shape, 1, skip)
