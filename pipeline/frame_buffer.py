"""Hold a clip's conditions and noise as they come, frame by frame, and drop them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from engines.device_arrays import Place, contiguous, take_frames
from generators.contract import Constants, Generator


class FrameBuffer:
    """An array that comes piece by piece along its frame axis, and forgets its oldest frames.

    Pieces must be contiguous, else taking a few frames would copy all. fetch: is called for more when frames
    are asked for that have not come. shape: of the whole array.
    """

    def __init__(self, first: np.ndarray, frames: int, axis: int, fetch: Callable[[], None]) -> None:
        self.dtype, self.shape = first.dtype, (*first.shape[:axis], frames, *first.shape[axis + 1 :])
        self.axis, self._fetch, self._begin = axis, fetch, 0
        self._parts = [first]

    @property
    def end(self) -> int:
        """The number of frames that have come, forgotten ones among them."""
        return self._begin + sum(part.shape[self.axis] for part in self._parts)

    def append(self, part: np.ndarray) -> None:
        """Take the frames that follow."""
        self._parts.append(part)

    def take(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """Return those frames, as NumPy's take does along the frame axis."""
        while self.end <= indices.max():
            self._fetch()
        if indices.min() < self._begin:
            raise IndexError(
                f"frame {indices.min()} is asked for, and those before {self._begin} are forgotten"
            )
        sizes = [part.shape[self.axis] for part in self._parts]
        return gather(np.cumsum([self._begin, *sizes[:-1]]), self._parts, indices, axis)

    def forget(self, before: int) -> None:
        """Drop frames before that one, whole pieces of them."""
        while len(self._parts) > 1 and self._begin + self._parts[0].shape[self.axis] <= before:
            self._begin += self._parts.pop(0).shape[self.axis]
        spare = before - self._begin
        if len(self._parts) == 1 and 2 * spare > self._parts[0].shape[self.axis]:
            kept = np.split(self._parts[0], [spare], self.axis)[1]
            self._parts, self._begin = [contiguous(kept)], before


class Conditions(Mapping):
    """A clip's constants as they come: arrays, and a FrameBuffer for each of those that change over time.

    pieces: of Streaming.condition_pieces. frames: of those that change over time. came: is told of each
    piece. place: where they are held.
    """

    def __init__(
        self,
        generator: Generator,
        pieces: Iterator[dict[str, np.ndarray]],
        frames: int,
        came: Callable[[Constants], None],
        place: Place | None = None,
    ) -> None:
        put = place.asarray if place else contiguous
        self._pieces = ({name: put(array) for name, array in piece.items()} for piece in pieces)
        self._came = came
        first = next(self._pieces)
        self._arrays = {
            name: FrameBuffer(array, frames, generator.frame_axis, self._fetch)
            if name in generator.per_frame
            else array
            for name, array in first.items()
        }
        came(first)

    def __getitem__(self, name: str) -> np.ndarray | FrameBuffer:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def whole(self) -> Constants:
        """Return all of them as arrays; no frame may have been dropped."""
        return {
            name: array.take(np.arange(array.shape[array.axis]), array.axis)
            if isinstance(array, FrameBuffer)
            else array
            for name, array in self._arrays.items()
        }

    def forget(self, before: int) -> None:
        """Drop frames before that latent frame."""
        for array in self._arrays.values():
            if isinstance(array, FrameBuffer):
                array.forget(before)

    def _fetch(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise IndexError("conditions have ended before the clip has")
        for name, array in piece.items():
            self._arrays[name].append(array)
        self._came(piece)


def gather(
    begins: np.ndarray | Sequence[int], parts: Sequence[np.ndarray], indices: np.ndarray, axis: int
) -> np.ndarray:
    """Return frames, by their numbers in a clip, from parts of it in order; each part begins with a frame."""
    numbers, taken = np.searchsorted(begins, indices, "right") - 1, []
    for places in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(numbers)) + 1):
        number = numbers[places[0]]
        taken.append(take_frames(parts[number], indices[places] - begins[number], axis))
    return taken[0] if len(taken) == 1 else np.concatenate(taken, axis)


def noise_of(generator: Generator, frames: int, seed: int, place: Place | None = None) -> FrameBuffer:
    """Return a clip's initial latents: by frames where the generator draws them so, else drawn at once."""
    axis, put = generator.frame_axis, place.asarray if place else contiguous
    if not hasattr(generator, "noise_pieces"):
        return FrameBuffer(put(generator.noise(frames, seed)), frames, axis, _no_more)
    pieces = map(put, generator.noise_pieces(frames, seed))
    buffer = FrameBuffer(next(pieces), frames, axis, lambda: buffer.append(next(pieces)))
    return buffer


def _no_more() -> None:
    raise IndexError("there are no more frames")
