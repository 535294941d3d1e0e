"""Draw torch's normal numbers, of a processor or a GPU, without torch: base models begin with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 16  # numbers that torch turns from uniform to normal together
# Of Cephes' logarithm, sine and cosine in single precision, highest power first.
LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
       -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
LN2 = (-2.12194440e-4, 0.693359375)  # its small part and the one with few bits
SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
EIGHTH_TURN = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)  # pi / 4, in parts
ROUNDS, MULTIPLIERS, WEYL = 10, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)  # of Philox 4x32
THREADS, UNROLLED = 256, 4  # of a block on the GPU; numbers that a thread draws at a time


def torch_normal(shape: tuple[int, ...], seed: int, skip: int = 0, calls: int = 0) -> np.ndarray:
    """Draw what torch.randn(shape) gives in float32 after torch.manual_seed(seed), bit for bit.

    calls: of torch.randn with this shape made before. skip: numbers drawn before them, in calls for whole
    multiples of 16. Torch takes 24 bits of a 32-bit Mersenne Twister a number and turns eight pairs at a time
    by Box and Muller, with Cephes' functions and fused products (x86 with AVX2; elsewhere the last bit may
    differ). Below 16 numbers it draws in another way: ValueError.
    """
    size = int(np.prod(shape))
    if size < BLOCK or skip % BLOCK:
        hint = "; calls=N counts calls with the same shape, of any size" if skip % BLOCK else ""
        raise ValueError(f"needs {BLOCK} numbers or more after whole {BLOCK}s, got {size} after {skip}{hint}")
    twister = np.random.RandomState(np.random.MT19937())
    twister.seed(seed & 0xFFFFFFFF)
    whole = size + BLOCK * bool(size % BLOCK)  # torch draws the last 16 again
    drawn = np.frombuffer(twister.bytes(4 * (skip + whole * (calls + 1))), np.uint32)[-whole:]
    uniform = (drawn & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)
    if size % BLOCK:
        numbers = np.empty(size, np.float32)
        numbers[: size // BLOCK * BLOCK] = _box_muller(uniform[: size // BLOCK * BLOCK])
        numbers[-BLOCK:] = _box_muller(uniform[-BLOCK:])
        return numbers.reshape(shape)
    return _box_muller(uniform).reshape(shape)


def step_noise(shape: tuple[int, ...], seed: int, step: int) -> np.ndarray:
    """Draw the noise of one step of a request, float32: by seed and step alone, in whatever order."""
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step))))
    return draws.standard_normal(shape, np.float32)


@dataclass
class CudaNormal:
    """The draws of torch.randn(shape, device="cuda") in float32, call after call, on one model of GPU.

    seed: of the generator. processors: multiprocessors of the GPU; numbers beyond a round of all its threads
    are laid out by it (A100: 108, H100 and H200: 132, RTX 4090: 128). threads: that one of them holds
    (2048; 1536 for compute capability 8.6, 8.9 and 12.0). Within 1e-5 of what a GPU computes, whose sine is a
    fast one: the formula was held against published numbers, not yet against a GPU.
    """

    seed: int
    processors: int
    threads: int = 2048
    _counter: int = 0

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the next numbers."""
        size = int(np.prod(shape))
        blocks = min(-(-size // THREADS), self.processors * (self.threads // THREADS))
        lanes = blocks * THREADS
        rounds = -(-size // (lanes * UNROLLED))
        counter = np.zeros((rounds, 4, lanes), np.uint64)
        number = np.arange(self._counter, self._counter + rounds, dtype=np.uint64)[:, None]
        counter[:, 0], counter[:, 1] = number & 0xFFFFFFFF, number >> 32
        counter[:, 2] = np.arange(lanes)
        self._counter += rounds
        drawn = philox(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))
        pairs = drawn.astype(np.float32).reshape(rounds, 2, 2, lanes)
        scale = np.float32(2**-32)
        uniform, turn = pairs[:, :, 0] * scale + scale / 2, pairs[:, :, 1] * scale + scale / 2
        radius, angle = np.sqrt(-2 * np.log(uniform)), np.float32(2 * np.pi) * turn
        numbers = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 2)
        return np.ascontiguousarray(numbers.reshape(-1)[:size].reshape(shape))


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Compute Philox 4x32-10 (Salmon et al., 2011): counters (..., 4, n) of 32 bits to as many uint64."""
    low = np.uint64(0xFFFFFFFF)
    x = [counter[..., place, :].astype(np.uint64) for place in range(4)]
    for number in range(ROUNDS):
        keys = [np.uint64((k + number * step) & 0xFFFFFFFF) for k, step in zip(key, WEYL, strict=True)]
        first, second = (x[place] * np.uint64(m) for place, m in zip((0, 2), MULTIPLIERS, strict=True))
        x = [(second >> 32) ^ x[1] ^ keys[0], second & low, (first >> 32) ^ x[3] ^ keys[1], first & low]
    return np.stack(x, -2)


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Make normal numbers of uniform ones; of each 16 the first eight are radii, the others angles."""
    first, second = uniform.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1)
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - first))
    sine, cosine = _sine_cosine(np.float32(2 * np.pi) * second)
    return np.stack([radius * cosine, radius * sine], 1).reshape(-1)


def _log(x: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.float32(0.5**0.5)
    x = mantissa - np.float32(1) + np.where(small, mantissa, np.float32(0))
    exponent = (exponent - small).astype(np.float32)
    square = x * x
    tail = _fused(_polynomial(LOG, x) * x, square, exponent * np.float32(LN2[0]))
    return (x + (tail - square * np.float32(0.5))) + exponent * np.float32(LN2[1])


def _sine_cosine(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute sine and cosine of angles >= 0: polynomials on an eighth of a turn, then swapped and signed."""
    eighths = ((angle * np.float32(4 / np.pi)).astype(np.int32) + 1) & ~1
    x = angle
    for part in EIGHTH_TURN:
        x = _fused(eighths.astype(np.float32), np.float32(-part), x)
    square = x * x
    sine = _fused(_polynomial(SINE, square) * square, x, x)
    cosine = _polynomial(COSINE, square) * square
    cosine = _fused(cosine, square, -(square * np.float32(0.5))) + np.float32(1)
    swapped = (eighths & 2) != 0
    first, second = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(eighths & 4, -first, first), np.where((eighths - 2) & 4, second, -second)


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = _fused(value, x, np.float32(coefficient))
    return value


def _fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Compute a * b + c, rounded once: the product of two float32 is exact in float64."""
    return (a.astype(np.float64) * b + c).astype(np.float32)
