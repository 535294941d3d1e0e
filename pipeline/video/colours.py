"""How a video's pixels are coded, in ffmpeg's words: pixel format, range and matrix, as far as tagged."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Tags of the matrix, as the scale filter calls what they stand for; no tag means BT.601 to every reader.
MATRICES = {"bt709": "bt709", "bt470bg": "bt601", "smpte170m": "bt601", "unknown": "bt601"}
FORMATS = ("yuv420p", "yuv444p")
TEXT = re.compile(r"(\w+)(?:\(([^)]*)\))?")


@dataclass(frozen=True)
class Colours:
    """range: tv (limited) or pc; tags: of matrix, primaries, transfer.

    What is "unknown" has no tag; a range without one is limited.
    """

    pixel_format: str = "yuv420p"
    range: str = "unknown"
    tags: tuple[str, str, str] = ("unknown", "unknown", "unknown")

    def check(self) -> Colours:
        """Itself; ValueError if it cannot be written."""
        if self.pixel_format not in FORMATS:
            known = ", ".join(FORMATS)
            raise ValueError(f"pixel format {self.pixel_format!r} is not written; known: {known}")
        if self.tags[0] not in MATRICES:
            raise ValueError(f"matrix {self.tags[0]!r} is not written; known: {', '.join(MATRICES)}")
        return self

    @classmethod
    def parse(cls, text: str) -> Colours:
        """From "yuv420p" or "yuv420p(tv, bt709)" or "yuv420p(tv, bt470bg/bt470bg/unknown)"; ValueError.

        Other words in the brackets, as ffmpeg has them there on interlacing, are passed over.
        """
        found = TEXT.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} does not name colours; as in yuv420p or yuv420p(tv, bt709)")
        pixel_format, words = found[1], [word.strip() for word in (found[2] or "").split(",")]
        full = pixel_format.startswith("yuvj")
        levels = next((word for word in words if word in ("tv", "pc")), "pc" if full else "unknown")
        tags = next((word for word in words if "/" in word or re.match("bt|smpte|gbr|fcc", word)), "unknown")
        tags = tags.split("/")
        tags = tags * 3 if len(tags) == 1 else tags
        return cls(pixel_format.replace("yuvj", "yuv"), levels, (tags[0], *tags[1:3]))

    @property
    def matrix(self) -> str:
        """What luma and chroma are made with, as the scale filter calls it."""
        return MATRICES.get(self.tags[0], self.tags[0])

    def __str__(self) -> str:
        """As `parse` takes it, and ffmpeg says it."""
        tags = self.tags[0] if len(set(self.tags)) == 1 else "/".join(self.tags)
        words = ", ".join(word for word in (self.range, tags) if word != "unknown")
        return f"{self.pixel_format}({words})" if words else self.pixel_format


TAGGED = Colours(range="tv", tags=("bt709", "bt709", "bt709"))
