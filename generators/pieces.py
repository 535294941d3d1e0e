"""Join arrays that come piece by piece, or cut them anew, for generators that stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


def gathered(pieces: Iterable[dict[str, np.ndarray]], frame_axis: int) -> dict[str, np.ndarray]:
    """Join the pieces of Streaming.condition_pieces to what `condition` returns."""
    first, *later = pieces
    parts = {
        name: [array, *(piece[name] for piece in later if name in piece)] for name, array in first.items()
    }
    return {
        name: each[0] if len(each) == 1 else np.concatenate(each, frame_axis) for name, each in parts.items()
    }


def in_chunks(pieces: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Give arrays of `length` frames, along the first axis, from pieces of any length, then the rest."""
    held: list[np.ndarray] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= length:
            whole = held[0] if len(held) == 1 else np.concatenate(held)
            full = len(whole) // length * length
            yield from (whole[start : start + length] for start in range(0, full, length))
            held = [whole[full:]]
    rest = [each for each in held if len(each)]
    if rest:
        yield np.concatenate(rest)
