"""The normal numbers that torch draws on a processor, without torch: base models begin with them."""

from __future__ import annotations

import numpy as np

BLOCK = 16  # numbers that torch turns from uniform to normal together


def torch_normal(shape: tuple[int, ...], seed: int, skip: int = 0) -> np.ndarray:
    """What torch.randn(shape) gives in float32 after torch.manual_seed(seed), up to rounding.

    skip: numbers drawn before by calls of whole multiples of 16. Torch takes 24 bits of a 32-bit Mersenne
    Twister a number and turns eight pairs at a time by Box and Muller; fewer than 16 numbers it draws in
    another way. ValueError for sizes that are no multiple of 16.
    """
    size = int(np.prod(shape))
    if size % BLOCK or skip % BLOCK:
        raise ValueError(f"sizes must be multiples of {BLOCK}, got {size} after {skip}")
    twister = np.random.RandomState(np.random.MT19937())
    twister.seed(seed & 0xFFFFFFFF)
    drawn = np.frombuffer(twister.bytes(4 * (skip + size)), np.uint32)[skip:].reshape(-1, 2, BLOCK // 2)
    uniform = (drawn & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)
    radius = np.sqrt(-2 * np.log(1 - uniform[:, 0]))
    angle = np.float32(2 * np.pi) * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(shape)
