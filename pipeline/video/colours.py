"""Describe how a video's pixels are coded, in ffmpeg's terms: pixel format, range, and colour tags."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The scale filter's name for each tag of the matrix; every reader takes untagged video as BT.601.
MATRICES = {"bt709": "bt709", "bt470bg": "bt601", "smpte170m": "bt601", "unknown": "bt601"}
FORMATS = ("yuv420p", "yuv444p")
TEXT = re.compile(r"(\w+)(?:\(([^)]*)\))?")


@dataclass(frozen=True)
class Colours:
    """A colour coding. range: tv (limited) or pc (full). tags: of matrix, primaries and transfer.

    "unknown" stands for a missing tag; without a tag the range is limited.
    """

    pixel_format: str = "yuv420p"
    range: str = "unknown"
    tags: tuple[str, str, str] = ("unknown", "unknown", "unknown")

    def check(self) -> Colours:
        """Return this coding; ValueError: VideoWriter cannot write it."""
        if self.pixel_format not in FORMATS:
            known = ", ".join(FORMATS)
            raise ValueError(f"pixel format {self.pixel_format!r} is not written; known: {known}")
        if self.tags[0] not in MATRICES:
            raise ValueError(f"matrix {self.tags[0]!r} is not written; known: {', '.join(MATRICES)}")
        return self

    @classmethod
    def parse(cls, text: str) -> Colours:
        """Parse "yuv420p", "yuv420p(tv, bt709)" or "yuv420p(tv, bt470bg/bt470bg/unknown)"; ValueError.

        Other words in the brackets, such as ffmpeg's on interlacing, are ignored.
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
        """The scale filter's name of the matrix between RGB and YUV."""
        return MATRICES.get(self.tags[0], self.tags[0])

    def __str__(self) -> str:
        """Return the text that `parse` reads, which is also how ffmpeg prints it."""
        tags = self.tags[0] if len(set(self.tags)) == 1 else "/".join(self.tags)
        words = ", ".join(word for word in (self.range, tags) if word != "unknown")
        return f"{self.pixel_format}({words})" if words else self.pixel_format


TAGGED = Colours(range="tv", tags=("bt709", "bt709", "bt709"))
