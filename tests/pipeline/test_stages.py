"""What a cluster's workers pass on: what was read comes as files would give it, also in smaller chunks."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.parallel import ray_actors as stages
from pipeline.parallel.ray_actors import Receipt, StoredSource


@pytest.fixture
def receipt(monkeypatch):
    """A picture and 20 frames in chunks of 8, as if the store held them."""
    monkeypatch.setattr(stages, "stored", lambda receipt: iter(receipt.arrays))
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None]
    return Receipt([np.full((1, 1, 1, 1), 99, np.uint8), *np.split(frames, [8, 16])])


def chunks(source):
    return [chunk.ravel().tolist() for chunk in source]


def test_the_picture_comes_first_and_is_no_chunk(receipt):
    source = StoredSource(receipt, SimpleNamespace(chunk=8))
    assert source.image.item() == 99 and source.frames == 0
    assert chunks(source) == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert source.frames == 20 and source.waited >= 0


def test_after_memory_ran_out_chunks_are_the_smaller_ones_from_the_first_again(receipt):
    generator = SimpleNamespace(chunk=8)
    source = StoredSource(receipt, generator)
    next(iter(source))
    generator.chunk = 4
    assert chunks(source) == [list(range(start, start + 4)) for start in range(0, 20, 4)]
    assert source.frames == 20
